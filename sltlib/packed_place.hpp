// Where the bits of a group of images lie, and what a team of threads shares and has for itself. See packed.cpp.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

#include "packed_fire.hpp"

namespace {

// ORs n bits from one place to another; both may be read and written 8 bytes beyond.
void copy_bits(const uint8_t* from, size_t at, uint8_t* to, size_t place, int n) {
    for (int done = 0; done < n; done += 48) {
        int now = std::min(48, n - done);
        size_t a = at + done, b = place + done;
        uint64_t x, y;
        memcpy(&x, from + a / 8, 8);
        x = (x >> a % 8 & ((1ull << now) - 1)) << b % 8;
        memcpy(&y, to + b / 8, 8);
        y |= x;
        memcpy(to + b / 8, &y, 8);
    }
}

struct Barrier {
    int size;
    std::atomic<int> arrived{0}, turn{0};
    explicit Barrier(int n) : size(n) {}
    void wait() {
        if (size == 1) return;
        int now = turn.load();
        if (arrived.fetch_add(1) + 1 == size) {
            arrived.store(0);
            turn.store(now + 1);
        } else {
            for (int spins = 0; turn.load() == now; spins++)
                if (spins > 2000) std::this_thread::yield();
        }
    }
};

// How the bits that a convolution reads lie for a group of images: `pitch` bits an image's row, `block` bytes a step,
// `row` bytes a row of all steps. A tile is `tile` rows of them, `columns` vectors. out_*: of what it gives.
struct Place {
    int pitch, block, row, tile = 1, columns = 1, out_pitch, out_size, out_block;
    std::vector<uint8_t> bits, valid, left, right;  // (inputs, size + 2, row); masks of lanes: outputs, not first, not last
    int pairs() const { return (columns + 1) / 2; }

    // As few vectors as cover all rows, two at once where that costs no more, and few rows at once: they stay in the cache.
    void choose_tile(const Layer& layer) {
        int least = layer.pool ? 2 : 1, rows = layer.size / least * least;
        double best = 1e30;
        for (int tile = least; tile <= rows; tile += least) {
            int vectors = (tile * row + BYTES - 1) / BYTES;
            if (tile > least && vectors > 4) break;
            double cost = ((rows + tile - 1) / tile) * (vectors / 2 * 2 + vectors % 2 * 1.2);
            if (cost < best - 1e-9) best = cost, this->tile = tile, columns = vectors;
        }
    }

    // Sign: twice the bits, and a weight on the padding, which is neither +1 nor -1, counts nothing.
    void borders(const Layer& layer, int steps, int group, int o, int y, int tile, int32_t* counts) const {
        for (int i = 0; i < tile * row * 8; i++) counts[i] *= 2;
        for (int r = 0; r < tile; r++) {
            int whole = 0, left = 0, right = 0;
            for (int k = 0; k < 3; k++) {
                const int32_t* sums = layer.sums + 9 * o + 3 * k;
                bool outside = y + r + k == 0 || y + r + k == layer.size + 1;
                if (outside) whole += sums[0] + sums[1] + sums[2];
                else left += sums[0], right += sums[2];
            }
            int32_t* at_row = counts + r * row * 8;
            for (int i = 0; whole && i < row * 8; i++) at_row[i] += whole;
            for (int t = 0; t < steps; t++)
                for (int image = 0; image < group; image++) {
                    int32_t* at = at_row + t * block * 8 + image * pitch;
                    at[0] += left, at[layer.size - 1] += right;
                }
        }
    }
};

// Bytes, at first 0, that begin where a vector may: loads across two lines of the cache take twice as long.
struct Lines {
    struct alignas(64) Line { uint8_t byte[64] = {}; };
    std::vector<Line> line;
    void resize(size_t bytes) { line.resize((bytes + 63) / 64); }
    uint8_t* data() { return line[0].byte; }
    uint8_t& operator[](size_t i) { return data()[i]; }
};

// What a thread needs for itself.
struct Own {
    Lines taps;
    std::vector<uint8_t> shifted[3], row, placed;
    std::vector<int32_t> counts;
    std::vector<float> currents, sums;
};

void set(std::vector<uint8_t>& v, int bit, bool on) { v[bit / 8] = on ? v[bit / 8] | 1 << bit % 8 : v[bit / 8] & ~(1 << bit % 8); }
int up(int n, int unit) { return (n + unit - 1) / unit * unit; }

uint64_t transposed(uint64_t x) {  // bit i of byte j to bit j of byte i
    uint64_t t = (x ^ x >> 7) & 0x00AA00AA00AA00AA;
    x ^= t ^ t << 7;
    t = (x ^ x >> 14) & 0x0000CCCC0000CCCC;
    x ^= t ^ t << 14;
    t = (x ^ x >> 28) & 0x00000000F0F0F0F0;
    return x ^ t ^ t << 28;
}

}  // namespace
