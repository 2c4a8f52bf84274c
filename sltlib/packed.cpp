// Binary tickets by bits: what sltlib/packed.py describes in NumPy, many neurons a vector. Same spikes, bit for bit.
//
// The spikes of a channel lie as bits: rows outer, time steps inner, then images, then columns (`pitch` bits an
// image's row). A tile is some rows of all steps; for each tap (channel, dy, dx) its bits are copied side by side,
// so a kept weight is one index. Per output channel a list of +1 taps and one of -1 taps is summed by carry-save
// full adders: planes of bits that hold, for each lane, sum of x over +1 plus sum of (1 - x) over -1. The planes are
// transposed to integers, pooled, scaled, shifted, fired through the neuron, and are bits again.
//
// packed_count.hpp: the adders. packed_fire.hpp: the neurons. packed_place.hpp: how bits lie. packed_linear.hpp: linear layers.
#include <new>

#include "packed_place.hpp"

namespace {

// ---------------------------------------------------------------- a group of images through the network

struct Group {
    const Net& net;
    const int chunk, group, steps, bytes;  // images at once in linear layers and in convolutions; bytes of chunk bits
    std::vector<Place> place;              // of what convolution i reads; the first reads pixels, its place says what it gives
    int shift = __builtin_ctz(TAP);        // of few images the taps of linear layers lie closer, and more of them in the cache
    int last, unit;                        // size after the last convolution, bytes of its rows
    std::vector<uint8_t> flat;             // (chunk, steps, outputs, last, unit): what the last convolution gives
    std::vector<Lines> dense;  // (pairs, features, 1 << shift bytes): what each linear layer reads
    std::vector<uint8_t> everyone;
    std::vector<int16_t> pixels;  // (frames, group, channels, plane())
    Barrier barrier;
    uint8_t* const* trace;  // of each layer with neurons: (images, steps, outputs, size, size); or null

    Group(const Net& n, int chunk_, int group_, int team, uint8_t* const* trace_)
        : net(n), chunk(chunk_), group(group_), steps(n.steps), bytes((chunk_ + 7) / 8), barrier(team), trace(trace_) {
        place.resize(net.convs);
        for (int i = net.convs - 1; i > 0; i--) {
            const Layer& layer = net.layer[i];
            Place& p = place[i];
            p.pitch = up(layer.size, group % 4 == 0 ? 2 : group % 2 == 0 ? 4 : 8);
            if (i + 1 < net.convs) {  // where rows may lie as the next layer wants them, nothing need be moved
                int wanted = place[i + 1].pitch * (layer.pool ? 2 : 1);
                if (wanted >= p.pitch && wanted <= p.pitch + p.pitch / 4) p.pitch = wanted;
            }
            p.block = group * p.pitch / 8, p.row = steps * p.block;
            p.out_pitch = layer.pool ? p.pitch / 2 : p.pitch, p.out_size = layer.pool ? layer.size / 2 : layer.size;
            p.choose_tile(layer);
            p.bits.assign(size_t(layer.inputs) * (layer.size + 2) * p.row + size_t(p.tile + 1) * p.row + SLACK + TAP, 0);
            p.left.assign((p.tile + 2) * p.row + SLACK, 255), p.right = p.left;
            for (int b = 0; b < (p.tile + 2) * steps; b++)
                for (int image = 0; image < group; image++) {
                    set(p.left, b * p.block * 8 + image * p.pitch, false);
                    set(p.right, b * p.block * 8 + image * p.pitch + layer.size - 1, false);
                }
        }
        place[0].out_pitch = place[1].pitch, place[0].out_size = net.layer[0].size;
        for (Place& p : place) {
            p.out_block = (group * p.out_pitch + 7) / 8;
            p.valid.assign(p.out_block, 0);
            for (int image = 0; image < group; image++)
                for (int x = 0; x < p.out_size; x++) set(p.valid, image * p.out_pitch + x, true);
        }
        pixels.assign(size_t(net.frames) * group * net.channels * plane(), 0);
        last = place[net.convs - 1].out_size, unit = (last + 7) / 8;
        flat.assign(size_t(chunk) * steps * net.layer[net.convs - 1].outputs * last * unit, 0);
        everyone.assign(bytes, 255);
        while (shift > 3 && steps * bytes <= 1 << (shift - 1)) shift--;
        for (int i = net.convs; i < net.layers; i++)
            dense.emplace_back().resize(size_t(up(columns(), 2) / 2) * (size_t(net.layer[i].inputs) << shift) + SLACK);
    }

    int plane() const { return up((net.layer[0].size + 2) * (net.layer[0].size + 2), 64) + 2 * net.layer[0].size + 128; }
    int columns() const { return (steps * bytes + BYTES - 1) / BYTES; }

    // One member of the team takes its share of every layer; images from .. from + count of the batch, at most a chunk.
    void run(const uint8_t* images, int64_t from, int count, float* logits, int member, Own& own) {
        const size_t image = size_t(net.frames) * net.channels * net.layer[0].size * net.layer[0].size;
        for (int start = 0; start < count; start += group) {
            const int now = std::min(group, count - start);
            if (!member) read(images + (from + start) * image, now);
            barrier.wait();
            first(from, start, now, member, own);
            barrier.wait();
            for (int i = 1; i < net.convs; i++) {
                convolve(i, from, start, now, member, own);
                barrier.wait();
            }
        }
        turn(member);
        barrier.wait();
        for (int i = net.convs; i < net.layers; i++) {
            multiply(i, from, count, logits, member, own);
            barrier.wait();
        }
    }

    __attribute__((noinline)) void read(const uint8_t* images, int now) {
        const int size = net.layer[0].size, wide = size + 2, maps = net.frames * net.channels;
        for (int image = 0; image < now; image++)
            for (int map = 0; map < maps; map++) {
                int16_t* to = &pixels[(size_t(map / net.channels * group + image) * net.channels + map % net.channels) * plane()];
                const uint8_t* from = images + (size_t(image) * maps + map) * size * size;
                for (int y = 0; y < size; y++)
                    for (int x = 0; x < size; x++) to[(y + 1) * wide + x + 1] = from[y * size + x];
            }
    }

    // The first layer: whole sums of grey levels, weighed channel by channel, and fired.
    __attribute__((noinline)) void first(int64_t from, int start, int now, int member, Own& own) {
        const Layer& layer = net.layer[0];
        const Place& p = place[0];
        const int size = layer.size, wide = size + 2, length = up(size * wide, 64), lanes = p.out_block * 8, maps = net.frames * group;
        constexpr int MANY = 128 / BYTES;  // vectors of 64 pixels
        own.sums.resize(length);
        own.currents.assign(size_t(net.frames) * size * lanes + 8, 0);
        std::vector<std::vector<int>> plus(net.channels), minus(net.channels);
        for (int o = member; o < layer.outputs; o += barrier.size) {
            for (auto& list : plus) list.clear();
            for (auto& list : minus) list.clear();
            const uint8_t* delta = layer.deltas + layer.begin[o];
            const int total = layer.begin[o + 1] - layer.begin[o], pluses = layer.plus[o];
            for (int e = 0, tap = 0; e < total; e++) {
                tap = (e == pluses ? 0 : tap) + delta[e];
                (e < pluses ? plus : minus)[tap / 9].push_back(tap % 9 / 3 * wide + tap % 3);
            }
            for (int map = 0; map < maps; map++) {
                float* sums = own.sums.data();
                for (int y = 0; y < size; y++) {
                    const float* base = layer.base + 9 * o + (y == 0 ? 0 : y < size - 1 ? 3 : 6);
                    for (int x = 0; x < size; x++) sums[y * wide + x] = base[1];
                    sums[y * wide] = base[0], sums[y * wide + size - 1] = base[2];
                }
                for (int c = 0; c < net.channels; c++) {
                    const int16_t* pixel = &pixels[(size_t(map) * net.channels + c) * plane()];
                    const float worth = net.pixel[c];
                    for (int i = 0; i < length; i += 64) {
                        words s[MANY] = {};
                        for (int at : plus[c])
                            for (int k = 0; k < MANY; k++) s[k] += ((const loose_words*)(pixel + at + i))[k];
                        for (int at : minus[c])
                            for (int k = 0; k < MANY; k++) s[k] -= ((const loose_words*)(pixel + at + i))[k];
                        int16_t whole[64];
                        memcpy(whole, s, sizeof s);
                        for (int k = 0; k < 64; k++) sums[i + k] += float(whole[k]) * worth;
                    }
                }
                for (int y = 0; y < size; y++)
                    memcpy(&own.currents[(size_t(y) * net.frames + map / group) * lanes + map % group * p.out_pitch], sums + y * wide, 4 * size);
            }
            const Source<float> from_ = {own.currents.data(), size, net.frames * lanes, net.frames > 1 ? lanes : 0, 0, layer.scale[o], layer.shift[o]};
            deliver<false>(0, o, 0, from_, from, start, now, own);
        }
    }

    __attribute__((noinline)) void convolve(int i, int64_t from, int start, int now, int member, Own& own) {
        const Layer& layer = net.layer[i];
        const Place& p = place[i];
        const int rows = layer.pool ? layer.size / 2 * 2 : layer.size, tiles = (rows + p.tile - 1) / p.tile, team = barrier.size;
        const int parts = tiles % team ? team : 1;
        own.taps.resize(size_t(p.pairs()) * layer.inputs * 9 * TAP);
        for (int item = member; item < tiles * parts; item += team) {
            const int y = item / parts * p.tile, part = item % parts, tile = std::min(p.tile, rows - y);
            gather(layer, p, y, own);
            for (int o = layer.outputs * part / parts; o < layer.outputs * (part + 1) / parts; o++) {
                int bits = count(layer, o, own, own.taps.data(), layer.inputs * 9, p.columns, __builtin_ctz(TAP));
                if (net.neuron == SIGN) p.borders(layer, steps, group, o, y, tile, (int32_t*)own.counts.data());
                if (net.neuron == SIGN || bits > 16) rows_of<int32_t>(i, o, y, tile, from, start, now, own);
                else if (bits > 8) rows_of<uint16_t>(i, o, y, tile, from, start, now, own);
                else rows_of<uint8_t>(i, o, y, tile, from, start, now, own);
            }
        }
    }

    template <class U> void rows_of(int i, int o, int y, int tile, int64_t from, int start, int now, Own& own) {
        const Layer& layer = net.layer[i];
        const Place& p = place[i];
        const int together = layer.pool ? 2 : 1;
        const Source<U> counts = {(const U*)own.counts.data(), tile / together, 8 * p.row * together, 8 * p.block, offset(layer, o), layer.scale[o], layer.shift[o]};
        if (layer.pool) deliver<true>(i, o, y / 2, counts, from, start, now, own);
        else deliver<false>(i, o, y, counts, from, start, now, own);
    }

    // What a count holds beside the sum: 1 for each -1 weight; of signs, whose bits count double, 1 for each weight.
    int offset(const Layer& layer, int o) const {
        int total = layer.begin[o + 1] - layer.begin[o];
        return net.neuron == SIGN ? total : total - int(layer.plus[o]);
    }

    // The bits of a tile's taps, side by side: (pairs, inputs, 3, 3, TAP).
    __attribute__((noinline)) void gather(const Layer& layer, const Place& p, int y, Own& own) const {
        const int length = (p.tile + 2) * p.row;
        for (auto& copy : own.shifted) copy.resize(length + 3 * TAP + 16);
        for (int c = 0; c < layer.inputs; c++) {
            uint8_t* middle = own.shifted[1].data() + 8;
            memcpy(middle, &p.bits[(size_t(c) * (layer.size + 2) + y) * p.row], length);
            memset(middle + length, 0, BYTES + 16);
            for (int i = 0; i <= length; i += BYTES) {  // a lane of 64 bits takes a bit from the one before or after
                const vec here = *(const loose*)(middle + i), before = *(const loose*)(middle + i - 8), after = *(const loose*)(middle + i + 8);
                *(loose*)(own.shifted[0].data() + 8 + i) = (here << 1 | before >> 63) & *(const loose*)&p.left[i];
                *(loose*)(own.shifted[2].data() + 8 + i) = (here >> 1 | after << 63) & *(const loose*)&p.right[i];
            }
            for (int pair = 0; pair < p.pairs(); pair++) {
                uint8_t* to = &own.taps[(size_t(pair) * layer.inputs + c) * 9 * TAP];
                for (int dy = 0; dy < 3; dy++)
                    for (int dx = 0; dx < 3; dx++, to += TAP) memcpy(to, own.shifted[dx].data() + 8 + dy * p.row + pair * TAP, TAP);
            }
        }
    }

    // Counts of output o for every lane into own.counts (uint8, uint16 or, of signs and wide ones, int32); their bits.
    int count(const Layer& layer, int o, Own& own, const uint8_t* taps, int features, int columns, int shift) const {
        const int total = layer.begin[o + 1] - layer.begin[o], plus = layer.plus[o];
        const uint8_t* deltas = layer.deltas + layer.begin[o];
        own.counts.resize(std::max(own.counts.size(), size_t(up(columns, 2)) * BYTES * 8 + 64));
        vec planes[LEVELS][2];
        int bits = 0;
        for (int column = 0; column < columns; column += 2, taps += size_t(features) * TAP) {
            const int many = std::min(2, columns - column);
            if (many == 2) {
                Counter<2> counter;  // not Counter<2>(): that would clear all of it
                bits = counter.run(layer.deltas, deltas, plus, total, taps, shift, planes);
            } else {
                Counter<1> counter;
                bits = counter.run(layer.deltas, deltas, plus, total, taps, shift, planes);
            }
            for (int k = 0; k < many; k++) {
                const size_t at = size_t(column + k) * BYTES * 8;
                if (net.neuron == SIGN || bits > 16) spread(planes, k, bits, own.counts.data() + at);
                else if (bits > 8) spread(planes, k, bits, (uint16_t*)own.counts.data() + at);
                else spread(planes, k, bits, (uint8_t*)own.counts.data() + at);
            }
        }
        return bits;
    }

    // Fires rows y, y + 1, ... and puts their spikes where the next layer reads them.
    template <bool POOL, class U> void deliver(int i, int o, int y, const Source<U>& counts, int64_t from, int start, int now, Own& own) {
        const Place& p = place[i];
        Place* next = i + 1 < net.convs ? &place[i + 1] : nullptr;
        uint8_t* to = next ? &next->bits[(size_t(o) * (net.layer[i + 1].size + 2) + y + 1) * next->row] : nullptr;
        const bool there = next && next->pitch == p.out_pitch;
        const int length = steps * p.out_block;  // of a row
        own.row.resize(std::max(own.row.size(), size_t(counts.rows) * length + 16));
        uint8_t* fired = there ? to : own.row.data();
        fire<POOL>(net, counts, Sink{fired, p.valid.data(), p.out_block, length, p.out_block});
        for (int r = 0; r < counts.rows; r++, fired += length, y++) {
            if (!there) place_row(p, next, to + (next ? size_t(r) * next->row : 0), fired, o, y, start, now, own);
            if (!trace || !trace[i]) continue;
            for (int image = 0; image < now; image++)
                for (int t = 0; t < steps; t++)
                    for (int x = 0; x < p.out_size; x++) {
                        const int lane = image * p.out_pitch + x;
                        const size_t at = ((size_t(from + start + image) * steps + t) * net.layer[i].outputs + o) * p.out_size + y;
                        trace[i][at * p.out_size + x] = fired[size_t(t) * p.out_block + lane / 8] >> lane % 8 & 1;
                    }
        }
    }

    // Copies a row's bits, image by image, to where the next convolution has them, or to `flat`. Writes no byte beside.
    void place_row(const Place& p, const Place* next, uint8_t* to, const uint8_t* fired, int o, int y, int start, int now, Own& own) {
        if (next) own.placed.assign(next->row + 16, 0);
        const int outputs = net.layer[net.convs - 1].outputs;
        for (int t = 0; t < steps; t++, fired += p.out_block)
            for (int image = 0; image < (next ? group : now); image++) {
                if (next) {
                    copy_bits(fired, image * p.out_pitch, own.placed.data(), size_t(t) * next->block * 8 + image * next->pitch, p.out_size);
                    continue;
                }
                uint8_t* bytes = &flat[((size_t(start + image) * steps + t) * outputs + o) * last * unit + y * unit];
                for (int x = 0; x < last; x += 8) {
                    const int bit = image * p.out_pitch + x;
                    uint16_t two;
                    memcpy(&two, fired + bit / 8, 2);
                    bytes[x / 8] = two >> bit % 8 & ((1 << std::min(8, last - x)) - 1);
                }
            }
        if (next) memcpy(to, own.placed.data(), next->row);
    }

    void turn(int member);  // packed_linear.hpp
    void multiply(int i, int64_t from, int count_, float* logits, int member, Own& own);
};

}  // namespace

#include "packed_linear.hpp"

namespace {

// Images at once in convolutions: as many as fill two vectors in the smallest layer.
int group_of(const Net& net, int chunk) {
    const Layer& end = net.layer[net.convs - 1];
    int group = 1;
    while (group < 8 && group < chunk && net.steps * group * up(end.size, 8 / group) * end.size / 8 < 2 * BYTES) group *= 2;
    return group;
}

}  // namespace

extern "C" {

int packed_bytes() { return BYTES; }

// Logits (count, classes) of uint8 images (count, frames, channels, size, size). Returns 0, or 1 without memory.
int packed_run(const Net* net, const uint8_t* images, int64_t count, float* logits, int threads, int group, uint8_t* const* trace) {
    try {
        const int most = std::max(8, 8 * BYTES / net->steps / 8 * 8);  // images that fill a vector in the linear layers
        const bool team = count < threads;
        int64_t chunks = team ? 1 : (count + most - 1) / most;
        if (!team) chunks = (chunks + threads - 1) / threads * threads;
        const int chunk = int((count + chunks - 1) / chunks), g = group ? group : group_of(*net, chunk);
        std::atomic<int64_t> next{0};
        std::atomic<int> failed{0};
        if (team) {
            Group shared(*net, chunk, g, threads, trace);
            std::vector<Own> own(threads);
            const auto work = [&](int member) {
                shared.run(images, 0, int(count), logits, member, own[member]);
            };
            std::vector<std::thread> others;
            for (int i = 1; i < threads; i++) others.emplace_back(work, i);
            work(0);
            for (auto& thread : others) thread.join();
            return 0;
        }
        const auto work = [&] {
            try {
                Group alone(*net, chunk, g, 1, trace);
                Own own;
                for (int64_t from; (from = next.fetch_add(1) * chunk) < count;)
                    alone.run(images, from, int(std::min<int64_t>(chunk, count - from)), logits, 0, own);
            } catch (const std::bad_alloc&) {
                failed = 1;
            }
        };
        std::vector<std::thread> others;
        for (int i = 1; i < std::min<int64_t>(threads, chunks); i++) others.emplace_back(work);
        work();
        for (auto& thread : others) thread.join();
        return failed;
    } catch (const std::exception&) {
        return 1;
    }
}
}
