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

typedef int16_t sixteen __attribute__((vector_size(32)));
typedef int16_t loose16 __attribute__((vector_size(32), aligned(2), may_alias));
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
        sum.v[i] = (vec)_mm512_ternarylogic_epi64(s, a, b, 0x96);
        carry.v[i] = (vec)_mm512_ternarylogic_epi64(s, a, b, MINUS ? 0x8E : 0xE8);
#else
        vec u = x.v[i] ^ y.v[i], a = sum.v[i] ^ x.v[i];
        sum.v[i] ^= u;
        carry.v[i] = x.v[i] ^ (u & (MINUS ? ~a : a));
#endif
    }
    return carry;
}

template <int N> struct List {
    const uint8_t *delta, *tap;
    inline __attribute__((always_inline)) Lanes<N> next() {
        tap += size_t(*delta++) * TAP;
        Lanes<N> x;
        for (int i = 0; i < N; i++) x.v[i] = *(const loose*)(tap + i * BYTES);
        return x;
    }
};

template <int N> struct Rest {
    const Lanes<N>* at;
    inline __attribute__((always_inline)) Lanes<N> next() { return *at++; }
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

template <int N> struct Counter {
    Lanes<N> one, two, four, sums[LEVELS], waiting[LEVELS], rest[16];
    unsigned full = 0;
    int rests = 0;

    void push(Lanes<N> carry, int level) {
        while (full >> level & 1) {
            full &= ~(1u << level);
            carry = add<false>(sums[level], waiting[level], carry);
            level++;
        }
        waiting[level] = carry;
        full |= 1u << level;
    }

    template <bool MINUS> static Lanes<N> plain(Lanes<N> x) {
        for (int i = 0; i < N && MINUS; i++) x.v[i] = ~x.v[i];
        return x;
    }

    template <bool MINUS> void take(List<N> list, int n) {
        Lanes<N> a = one, b = two, c = four, d = sums[3];
        for (; n >= 16; n -= 16) {
            Lanes<N> x = eight<MINUS>(list, a, b, c), y = eight<MINUS>(list, a, b, c);
            push(plain<MINUS>(add<MINUS>(d, x, y)), 4);
        }
        sums[3] = d;
        if (n >= 8) {
            push(plain<MINUS>(eight<MINUS>(list, a, b, c)), 3);
            n -= 8;
        }
        one = a, two = b, four = c;
        for (; n; n--) rest[rests++] = plain<MINUS>(list.next());
    }

    // Planes of the count, least first; returns how many.
    int run(const uint8_t* deltas, int plus, int total, const uint8_t* taps, vec (*planes)[2]) {
        int bits = total ? 32 - __builtin_clz(total) : 0;
        Lanes<N> none = {};
        one = two = four = none;
        for (int i = 3; i < bits + 2; i++) sums[i] = none;
        take<false>(List<N>{deltas, taps}, plus);
        take<true>(List<N>{deltas + plus, taps}, total - plus);
        while (rests % 8) rest[rests++] = none;
        Rest<N> from{rest};
        for (int i = 0; i < rests; i += 8) push(eight<false>(from, one, two, four), 3);
        Lanes<N> carry = none;
        for (int level = 3; level < bits; level++) {
            if (full >> level & 1) {
                carry = add<false>(sums[level], waiting[level], carry);
            } else {
                for (int i = 0; i < N; i++) {
                    vec both = sums[level].v[i] & carry.v[i];
                    sums[level].v[i] ^= carry.v[i];
                    carry.v[i] = both;
                }
            }
        }
        for (int i = 0; i < N; i++) {
            planes[0][i] = one.v[i], planes[1][i] = two.v[i], planes[2][i] = four.v[i];
            for (int level = 3; level < bits; level++) planes[level][i] = sums[level].v[i];
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
