// The neurons: counts to currents to spikes, eight lanes at once. See packed.cpp.
#pragma once
#include "packed_count.hpp"

namespace {

enum Neuron { ZERO = 0, SUBTRACT = 1, SIGN = 2 };

struct Layer {
    int32_t inputs, outputs, size, pool;  // size: rows and columns that come in; 1 of a linear layer
    const uint8_t* deltas;                // of each output its +1 taps, then its -1 taps, as steps from tap to tap
    const uint32_t* begin;                // where an output's list begins
    const uint32_t* plus;                 // how many of its taps are +1
    const float *scale, *shift;           // of the normalisation, gain included
    const int32_t* sums;                  // sign: (outputs, 3, 3) sums of the weights at each place of the kernel
    const float* base;                    // first layer: (outputs, 3, 3) what the pixels' mean adds, by border
};

struct Net {
    int32_t layers, convs, steps, frames, neuron, channels, classes, unused;
    float beta, threshold;
    const float* pixel;  // what one grey level of a channel is worth
    const Layer* layer;
};

// ---------------------------------------------------------------- neurons

// Where currents come from: counts (or floats) of row r and step t at values + r * row + t * step; where POOL, rows
// and columns in pairs. step 0: the same current at every step. current = (count - minus) * scale + shift.
template <class U> struct Source {
    const U* values;
    int rows, row, step, minus;
    float scale, shift;
};

// Where spikes go: out + r * row + t * step, `bytes` of them; valid: the lanes that are neurons.
struct Sink {
    uint8_t* out;
    const uint8_t* valid;
    int bytes, row, step;
};

#ifdef __AVX2__
inline __m256i eight_of(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
inline __m256i eight_of(const uint16_t* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline __m256i eight_of(const int32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline __m256i pooled(const uint8_t* p, const uint8_t* q) {
    __m256i w = _mm256_cvtepu16_epi32(_mm_max_epu8(_mm_loadu_si128((const __m128i*)p), _mm_loadu_si128((const __m128i*)q)));
    return _mm256_max_epi32(_mm256_and_si256(w, _mm256_set1_epi32(255)), _mm256_srli_epi32(w, 8));
}
inline __m256i pooled(const uint16_t* p, const uint16_t* q) {
    __m256i w = _mm256_max_epu16(_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)q));
    return _mm256_max_epi32(_mm256_and_si256(w, _mm256_set1_epi32(65535)), _mm256_srli_epi32(w, 16));
}
inline __m256i pooled(const int32_t* p, const int32_t* q) {
    __m256 a = _mm256_castsi256_ps(_mm256_max_epi32(eight_of(p), eight_of(q)));
    __m256 b = _mm256_castsi256_ps(_mm256_max_epi32(eight_of(p + 8), eight_of(q + 8)));
    __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
    return _mm256_permute4x64_epi64(_mm256_max_epi32(even, odd), 0xD8);
}
template <bool POOL, class U> inline __m256 eight_currents(const Source<U>& from, const U* p) {
    __m256i n = POOL ? pooled(p, p + from.row / 2) : eight_of(p);
    __m256 x = _mm256_cvtepi32_ps(_mm256_sub_epi32(n, _mm256_set1_epi32(from.minus)));
    return _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(from.scale)), _mm256_set1_ps(from.shift));
}
template <bool POOL> inline __m256 eight_currents(const Source<float>& from, const float* p) {
    return _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(p), _mm256_set1_ps(from.scale)), _mm256_set1_ps(from.shift));
}
typedef __m256 Eight;
inline Eight all(float x) { return _mm256_set1_ps(x); }
inline Eight above(Eight a, Eight b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
inline Eight at_least(Eight a, Eight b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
inline Eight where(Eight mask, Eight x) { return _mm256_and_ps(mask, x); }
inline Eight unless(Eight mask, Eight x) { return _mm256_andnot_ps(mask, x); }
inline uint8_t bits_of(Eight mask) { return _mm256_movemask_ps(mask); }
#else
typedef float Four __attribute__((vector_size(16)));  // the compiler makes of it what the processor has: NEON, SSE2
typedef int32_t Mask4 __attribute__((vector_size(16)));
struct Eight { Four a, b; };
struct Mask8 { Mask4 a, b; };
inline Eight all(float x) { return {Four{} + x, Four{} + x}; }
inline Eight operator*(Eight x, Eight y) { return {x.a * y.a, x.b * y.b}; }
inline Eight operator+(Eight x, Eight y) { return {x.a + y.a, x.b + y.b}; }
inline Eight operator-(Eight x, Eight y) { return {x.a - y.a, x.b - y.b}; }
inline Mask8 above(Eight x, Eight y) { return {x.a > y.a, x.b > y.b}; }
inline Mask8 at_least(Eight x, Eight y) { return {x.a >= y.a, x.b >= y.b}; }
inline Eight where(Mask8 m, Eight x) { return {(Four)(m.a & (Mask4)x.a), (Four)(m.b & (Mask4)x.b)}; }
inline Eight unless(Mask8 m, Eight x) { return {(Four)(~m.a & (Mask4)x.a), (Four)(~m.b & (Mask4)x.b)}; }
inline uint8_t bits_of(Mask8 m) {
    const Mask4 x = (m.a & Mask4{1, 2, 4, 8}) | (m.b & Mask4{16, 32, 64, 128});
    return x[0] | x[1] | x[2] | x[3];
}
template <bool POOL, class U> inline Eight eight_currents(const Source<U>& from, const U* p) {
    float n[8];
    for (int i = 0; i < 8; i++) {
        const U *x = p + (POOL ? 2 * i : i), *y = x + from.row / 2;
        n[i] = float((POOL ? std::max(std::max(x[0], x[1]), std::max(y[0], y[1])) : x[0]) - from.minus);
    }
    Eight out;
    memcpy(&out, n, sizeof n);
    return out * all(from.scale) + all(from.shift);
}
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && VECTOR_BYTES == 64
// Sixteen lanes: the same operations in the same order, masks in registers of their own.
struct Sixteen { __m512 v; };
inline Sixteen operator*(Sixteen a, Sixteen b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Sixteen operator+(Sixteen a, Sixteen b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Sixteen operator-(Sixteen a, Sixteen b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline __mmask16 above(Sixteen a, Sixteen b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
inline __mmask16 at_least(Sixteen a, Sixteen b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
inline Sixteen where(__mmask16 mask, Sixteen x) { return {_mm512_maskz_mov_ps(mask, x.v)}; }
inline Sixteen unless(__mmask16 mask, Sixteen x) { return {_mm512_maskz_mov_ps(_knot_mask16(mask), x.v)}; }
inline uint16_t bits_of(__mmask16 mask) { return mask; }
inline __m512i sixteen_of(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline __m512i sixteen_of(const uint16_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline __m512i sixteen_of(const int32_t* p) { return _mm512_loadu_si512(p); }
inline __m512i sixteen_pooled(const uint8_t* p, const uint8_t* q) {
    __m512i w = _mm512_cvtepu16_epi32(_mm256_max_epu8(_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)q)));
    return _mm512_max_epi32(_mm512_and_si512(w, _mm512_set1_epi32(255)), _mm512_srli_epi32(w, 8));
}
inline __m512i sixteen_pooled(const uint16_t* p, const uint16_t* q) {
    __m512i w = _mm512_max_epu16(_mm512_loadu_si512(p), _mm512_loadu_si512(q));
    return _mm512_max_epi32(_mm512_and_si512(w, _mm512_set1_epi32(65535)), _mm512_srli_epi32(w, 16));
}
inline __m512i sixteen_pooled(const int32_t* p, const int32_t* q) {
    const __m512i a = _mm512_max_epi32(sixteen_of(p), sixteen_of(q)), b = _mm512_max_epi32(sixteen_of(p + 16), sixteen_of(q + 16));
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_max_epi32(_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b));
}
template <bool POOL, class U> inline Sixteen currents(const Source<U>& from, const U* p, Sixteen) {
    const __m512i n = POOL ? sixteen_pooled(p, p + from.row / 2) : sixteen_of(p);
    const Sixteen x = {_mm512_cvtepi32_ps(_mm512_sub_epi32(n, _mm512_set1_epi32(from.minus)))};
    return x * Sixteen{_mm512_set1_ps(from.scale)} + Sixteen{_mm512_set1_ps(from.shift)};
}
template <bool POOL> inline Sixteen currents(const Source<float>& from, const float* p, Sixteen) {
    return Sixteen{_mm512_loadu_ps(p)} * Sixteen{_mm512_set1_ps(from.scale)} + Sixteen{_mm512_set1_ps(from.shift)};
}
inline Sixteen all(float x, Sixteen) { return {_mm512_set1_ps(x)}; }
constexpr bool WIDE = true;
#else
typedef Eight Sixteen;
constexpr bool WIDE = false;
#endif
inline Eight all(float x, Eight) { return all(x); }
template <bool POOL, class U> inline Eight currents(const Source<U>& from, const U* p, Eight) { return eight_currents<POOL>(from, p); }

// Which byte of which row comes next.
struct Cursor {
    int row = 0, byte = 0;
    void step(int by, int bytes) {
        byte += by;
        if (byte >= bytes) byte = 0, row++;
    }
};

// Fires N times the lanes of V side by side, so that one's arithmetic hides another's latency.
template <int N, int NEURON, bool POOL, class V, class U> inline void fire_some(const Net& net, const Source<U> from, const Sink to, Cursor& at) {
    const V beta = all(net.beta, V()), threshold = all(net.threshold, V()), zero = all(0, V());
    typedef decltype(above(zero, zero)) Mask;
    typedef decltype(bits_of(Mask())) Bits;
    const int steps = net.steps;
    const U* values[N];
    uint8_t* out[N];
    Bits valid[N];
    V u[N], now[N];
    Mask fired[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
        values[n] = from.values + size_t(at.row) * from.row + (POOL ? 16 : 8) * at.byte;
        out[n] = to.out + size_t(at.row) * to.row + at.byte;
        memcpy(&valid[n], to.valid + at.byte, sizeof(Bits));
        at.step(sizeof(Bits), to.bytes);
        u[n] = zero, fired[n] = above(zero, zero), now[n] = currents<POOL>(from, values[n], V());
    }
    for (int t = 0; t < steps; t++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            if (t && from.step) now[n] = currents<POOL>(from, values[n] += from.step, V());
            if (NEURON == SIGN) fired[n] = at_least(now[n], zero);
            else if (t == 0) u[n] = now[n];
            else if (NEURON == ZERO) u[n] = beta * unless(fired[n], u[n]) + now[n];
            else u[n] = beta * u[n] + now[n] - where(fired[n], threshold);
            if (NEURON != SIGN) fired[n] = above(u[n], threshold);
            const Bits bits = bits_of(fired[n]) & valid[n];
            memcpy(out[n], &bits, sizeof(Bits));
            out[n] += to.step;
        }
}

template <int NEURON, bool POOL, class U> void fire(const Net& net, const Source<U>& from, const Sink& to) {
    const int all = from.rows * to.bytes;
    int done = 0;
    Cursor at;
    if (WIDE && to.bytes % 2 == 0) {
        for (; done + 8 <= all; done += 8) fire_some<4, NEURON, POOL, Sixteen>(net, from, to, at);
        for (; done < all; done += 2) fire_some<1, NEURON, POOL, Sixteen>(net, from, to, at);
    }
    for (; done + 4 <= all; done += 4) fire_some<4, NEURON, POOL, Eight>(net, from, to, at);
    for (; done < all; done++) fire_some<1, NEURON, POOL, Eight>(net, from, to, at);
}

template <bool POOL, class U> void fire(const Net& net, const Source<U>& from, const Sink& to) {
    if (net.neuron == ZERO) fire<ZERO, POOL>(net, from, to);
    else if (net.neuron == SIGN) fire<SIGN, POOL>(net, from, to);
    else fire<SUBTRACT, POOL>(net, from, to);
}

}  // namespace
