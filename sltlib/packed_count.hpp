// Counting bits: full adders over lists of taps, and planes of bits to integers. See packed.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifndef VECTOR_BYTES
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

namespace {

typedef int16_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef int16_t loose_words __attribute__((vector_size(VECTOR_BYTES), aligned(2), may_alias));
constexpr int BYTES = VECTOR_BYTES, TAP = 2 * BYTES, SLACK = 4 * BYTES, LEVELS = 26;
typedef uint64_t vec __attribute__((vector_size(BYTES)));
typedef uint64_t loose __attribute__((vector_size(BYTES), aligned(1), may_alias));

// ---------------------------------------------------------------- counting

template <int N> struct Lanes { vec v[N]; };

// Adds two bits to a plane and returns the carry. MINUS: x, y and the carry are complements.
template <bool MINUS, int N> inline __attribute__((always_inline)) Lanes<N> add(Lanes<N>& sum, const Lanes<N>& x, const Lanes<N>& y) {
    Lanes<N> carry;
    for (int i = 0; i < N; i++) {
#if defined(__AVX512F__) && VECTOR_BYTES == 64
        __m512i s = (__m512i)sum.v[i], a = (__m512i)x.v[i], b = (__m512i)y.v[i];
        s = _mm512_ternarylogic_epi64(s, a, b, 0x96);
        sum.v[i] = (vec)s;  // the carry from the new sum, so that no register need be copied
        carry.v[i] = (vec)_mm512_ternarylogic_epi64(a, s, b, MINUS ? 0xE8 : 0xB2);
#else
        vec u = x.v[i] ^ y.v[i], a = sum.v[i] ^ x.v[i];
        sum.v[i] ^= u;
        carry.v[i] = x.v[i] ^ (u & (MINUS ? ~a : a));
#endif
    }
    return carry;
}

// The taps of a list, one after another; what a list does not have is `none`, and costs as much.
template <int N> struct List {
    const uint8_t *delta, *tap;
    int shift;  // a tap is 1 << shift bytes after the one before
    inline __attribute__((always_inline)) Lanes<N> next() {
        tap += size_t(*delta++) << shift;
        return here();
    }
    inline __attribute__((always_inline)) Lanes<N> here() const {
        Lanes<N> x;
        for (int i = 0; i < N; i++) {
            x.v[i] = *(const loose*)(tap + i * BYTES);
#if defined(__AVX512F__) && VECTOR_BYTES == 64
            asm("" : "+v"(x.v[i]));  // in a register: both operations of a full adder want it, and would load it twice
#endif
        }
        return x;
    }
};

// The last `left` (less than 8) taps of a list that ends at `end`; the others are nothing. MINUS: complements.
template <bool MINUS, int N> struct Tail {
    List<N> list;
    uint64_t deltas = 0;
    int left;
    Tail(const List<N>& from, int n, const uint8_t* first) : list(from), left(n) {
        const uint8_t* end = from.delta + n;
        if (end - first >= 8) memcpy(&deltas, end - 8, 8), deltas = n ? deltas >> (64 - 8 * n) : 0;
        else for (int i = n; i--;) deltas = deltas << 8 | from.delta[i];
    }
    inline __attribute__((always_inline)) Lanes<N> next() {
        list.tap += size_t(deltas & 255) << list.shift, deltas >>= 8;
        Lanes<N> x = list.here();
        const vec mask = vec{} + -uint64_t(left-- > 0);
        for (int i = 0; i < N; i++) x.v[i] = (MINUS ? ~x.v[i] : x.v[i]) & mask;
        return x;
    }
};

template <bool MINUS, int N, class From>
inline __attribute__((always_inline)) Lanes<N> eight(From& from, Lanes<N>& one, Lanes<N>& two, Lanes<N>& four) {
    Lanes<N> x = from.next(), y = from.next(), a = add<MINUS>(one, x, y);
    x = from.next(), y = from.next();
    Lanes<N> b = add<MINUS>(one, x, y), c = add<MINUS>(two, a, b);
    x = from.next(), y = from.next();
    a = add<MINUS>(one, x, y);
    x = from.next(), y = from.next();
    b = add<MINUS>(one, x, y);
    Lanes<N> d = add<MINUS>(two, a, b);
    return add<MINUS>(four, c, d);
}

// Sums of the lists of one output, a plane a power of two: five by full adders, the others by carries of 32.
template <int N> struct Counter {
    typedef Lanes<N> L;
    L high[LEVELS], waiting[LEVELS];
    unsigned full = 0;

    template <bool MINUS> static L plain(L x) {
        for (int i = 0; i < N && MINUS; i++) x.v[i] = ~x.v[i];
        return x;
    }

    // A carry of 32: it waits for another, and a full adder takes both.
    void push(L carry) {
        int level = 5;
        for (; full >> level & 1; level++) {
            full &= ~(1u << level);
            carry = add<false>(high[level], waiting[level], carry);
        }
        waiting[level] = carry, full |= 1u << level;
    }

    // Takes a list but for its last (n mod 8), and what is left of it: carries of 16 and of 8.
    template <bool MINUS> inline __attribute__((always_inline)) void take(List<N>& list, int n, L* sum, L& of16, L& of8) {
        L a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4];
        for (; n >= 32; n -= 32) {
            L x = eight<MINUS>(list, a, b, c), y = eight<MINUS>(list, a, b, c), z = add<MINUS>(d, x, y);
            x = eight<MINUS>(list, a, b, c), y = eight<MINUS>(list, a, b, c);
            push(plain<MINUS>(add<MINUS>(e, z, add<MINUS>(d, x, y))));
        }
        if (n >= 16) {
            L x = eight<MINUS>(list, a, b, c), y = eight<MINUS>(list, a, b, c);
            of16 = plain<MINUS>(add<MINUS>(d, x, y)), n -= 16;
        }
        if (n >= 8) of8 = plain<MINUS>(eight<MINUS>(list, a, b, c));
        sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d, sum[4] = e;
    }

    // Planes of the count, least first; returns how many. first : where the layer's lists begin.
    int run(const uint8_t* first, const uint8_t* deltas, int plus, int total, const uint8_t* taps, int shift, vec (*planes)[2]) {
        const int bits = total ? 32 - __builtin_clz(total) : 0;
        const L none = {};
        L sum[5] = {none, none, none, none, none}, p16 = none, p8 = none, m16 = none, m8 = none;
        for (int level = 5; level < std::max(bits, 5) + 2; level++) high[level] = none;
        List<N> up{deltas, taps, shift}, down{deltas + plus, taps, shift};
        take<false>(up, plus, sum, p16, p8);
        take<true>(down, total - plus, sum, m16, m8);
        Tail<false, N> one(up, plus % 8, first);
        Tail<true, N> other(down, (total - plus) % 8, first);
        const L x = eight<false>(one, sum[0], sum[1], sum[2]), y = eight<false>(other, sum[0], sum[1], sum[2]);
        const L a = add<false>(sum[3], p8, m8), b = add<false>(sum[3], x, y);
        push(add<false>(sum[4], p16, m16));
        push(add<false>(sum[4], a, b));
        L carry = none;
        for (int level = 5; level < bits; level++) {
            if (full >> level & 1) {
                carry = add<false>(high[level], waiting[level], carry);
                continue;
            }
            for (int i = 0; i < N; i++) {
                const vec both = high[level].v[i] & carry.v[i];
                high[level].v[i] ^= carry.v[i], carry.v[i] = both;
            }
        }
        for (int i = 0; i < N; i++) {
            for (int level = 0; level < 5; level++) planes[level][i] = sum[level].v[i];
            for (int level = 5; level < bits; level++) planes[level][i] = high[level].v[i];
        }
        return bits;
    }
};

// ---------------------------------------------------------------- planes to integers

inline vec repeat(uint64_t word) { return vec{} + word; }

// Eight planes (`stride` apart) to a byte a lane, in the order of the lanes.
void bytes_of(const vec (*planes)[2], int column, int count, uint8_t* out) {
    vec p[8];
    for (int i = 0; i < 8; i++) p[i] = i < count ? planes[i][column] : vec{};
#if defined(__GFNI__) && defined(__AVX512BW__) && VECTOR_BYTES == 64
    __m512i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        const __m512i x = (__m512i)p[7 - 2 * i], y = (__m512i)p[6 - 2 * i];
        a[i] = _mm512_unpacklo_epi8(x, y), a[i + 4] = _mm512_unpackhi_epi8(x, y);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            const __m512i x = k ? _mm512_unpackhi_epi16(a[i], a[i + 1]) : _mm512_unpacklo_epi16(a[i], a[i + 1]);
            const __m512i y = k ? _mm512_unpackhi_epi16(a[i + 2], a[i + 3]) : _mm512_unpacklo_epi16(a[i + 2], a[i + 3]);
            b[i + 2 * k] = _mm512_unpacklo_epi32(x, y), b[i + 2 * k + 1] = _mm512_unpackhi_epi32(x, y);
        }
    for (int i = 0; i < 8; i++) {  // eight bits of eight planes as a matrix, transposed by one instruction
        const __m512i c = _mm512_gf2p8affine_epi64_epi8(_mm512_set1_epi64(0x8040201008040201), b[i], 0);
        b[i] = c;
    }
    for (int i = 0; i < 8; i += 4) {  // each has 16 lanes of four places; four of them have 64 of each
        const __m512i low = _mm512_shuffle_i64x2(b[i], b[i + 1], 0x44), high = _mm512_shuffle_i64x2(b[i], b[i + 1], 0xEE);
        const __m512i low2 = _mm512_shuffle_i64x2(b[i + 2], b[i + 3], 0x44), high2 = _mm512_shuffle_i64x2(b[i + 2], b[i + 3], 0xEE);
        _mm512_storeu_si512(out + 16 * i, _mm512_shuffle_i64x2(low, low2, 0x88));
        _mm512_storeu_si512(out + 16 * i + 128, _mm512_shuffle_i64x2(low, low2, 0xDD));
        _mm512_storeu_si512(out + 16 * i + 256, _mm512_shuffle_i64x2(high, high2, 0x88));
        _mm512_storeu_si512(out + 16 * i + 384, _mm512_shuffle_i64x2(high, high2, 0xDD));
    }
    return;
#endif
    const uint64_t masks[3] = {0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F};
    for (int s = 0; s < 3; s++) {
        int by = 1 << s;
        vec mask = repeat(masks[s]);
        for (int i = 0; i < 8; i++) {
            if (i & by) continue;
            vec t = ((p[i] >> by) ^ p[i + by]) & mask;
            p[i + by] ^= t;
            p[i] ^= t << by;
        }
    }
#ifdef __SSE2__
    for (int half = 0; half < BYTES / 16; half++) {
        __m128i a[8], b[8];
        for (int i = 0; i < 8; i++) a[i] = ((const __m128i*)&p[i])[half];
        for (int i = 0; i < 4; i++) b[i] = _mm_unpacklo_epi8(a[2 * i], a[2 * i + 1]), b[i + 4] = _mm_unpackhi_epi8(a[2 * i], a[2 * i + 1]);
        for (int h = 0; h < 2; h++) {
            __m128i c[4];
            for (int i = 0; i < 2; i++) {
                c[i] = _mm_unpacklo_epi16(b[4 * h + 2 * i], b[4 * h + 2 * i + 1]);
                c[i + 2] = _mm_unpackhi_epi16(b[4 * h + 2 * i], b[4 * h + 2 * i + 1]);
            }
            for (int i = 0; i < 2; i++) {
                _mm_storeu_si128((__m128i*)out + 0, _mm_unpacklo_epi32(c[2 * i], c[2 * i + 1]));
                _mm_storeu_si128((__m128i*)out + 1, _mm_unpackhi_epi32(c[2 * i], c[2 * i + 1]));
                out += 32;
            }
        }
    }
#else
    for (int b = 0; b < BYTES; b++)
        for (int i = 0; i < 8; i++) *out++ = ((const uint8_t*)&p[i])[b];
#endif
}

// A count a lane, 8 * BYTES of them.
void spread(const vec (*planes)[2], int column, int bits, uint8_t* out) { bytes_of(planes, column, bits, out); }

void spread(const vec (*planes)[2], int column, int bits, uint16_t* out) {
    uint8_t low[8 * BYTES], high[8 * BYTES];
    bytes_of(planes, column, std::min(bits, 8), low);
    bytes_of(planes + 8, column, std::max(bits - 8, 0), high);
    for (int i = 0; i < 8 * BYTES; i++) out[i] = low[i] | high[i] << 8;
}

void spread(const vec (*planes)[2], int column, int bits, int32_t* out) {
    uint8_t byte[8 * BYTES];
    for (int group = 0; group < 3; group++) {
        if (group && bits <= 8 * group) break;
        bytes_of(planes + 8 * group, column, std::max(0, std::min(bits - 8 * group, 8)), byte);
        for (int i = 0; i < 8 * BYTES; i++) out[i] = group ? out[i] | byte[i] << 8 * group : byte[i];
    }
}

}  // namespace
