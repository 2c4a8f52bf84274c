// A group of images through the linear layers: a lane an image. Read by packed.cpp, in the midst of it.
#pragma once

namespace {

// From bits of columns to bits of images: what the first linear layer reads.
__attribute__((noinline)) void Group::turn(int member) {
    const int outputs = net.layer[net.convs - 1].outputs, features = outputs * last * last;
    const size_t image = size_t(steps) * outputs * last * unit;
    for (int line = member; line < outputs * last; line += barrier.size)
        for (int t = 0; t < steps; t++)
            for (int k = 0; k < unit; k++)
                for (int b = 0; b < bytes; b++) {
                    uint64_t block = 0;
                    for (int j = 0; j < 8 && 8 * b + j < chunk; j++)
                        block |= uint64_t(flat[(8 * b + j) * image + (size_t(t) * outputs * last + line) * unit + k]) << 8 * j;
                    block = transposed(block);
                    const int at = t * bytes + b;
                    for (int x = 8 * k; x < std::min(last, 8 * k + 8); x++)
                        dense[0][((size_t(at / TAP) * features + line * last + x) << shift) + at % TAP] = block >> 8 * (x % 8);
                }
}

__attribute__((noinline)) void Group::multiply(int i, int64_t from, int count_, float* logits, int member, Own& own) {
    const Layer& layer = net.layer[i];
    const int lanes = 8 * bytes, length = steps * bytes;
    own.row.resize(std::max(own.row.size(), size_t(length + 16)));
    for (int o = member; o < layer.outputs; o += barrier.size) {
        const int bits = count(layer, o, own, dense[i - net.convs].data(), layer.inputs, columns(), shift);
        int32_t* wide = own.counts.data();
        if (net.neuron == SIGN)
            for (int k = 0; k < 8 * length; k++) wide[k] *= 2;
        const auto value = [&](int k) {
            return net.neuron == SIGN || bits > 16 ? wide[k] : bits > 8 ? ((const uint16_t*)wide)[k] : ((const uint8_t*)wide)[k];
        };
        if (i + 1 == net.layers) {
            for (int image = 0; image < count_; image++) {
                int64_t sum = 0;
                for (int t = 0; t < steps; t++) sum += value(t * lanes + image) - offset(layer, o);
                logits[(from + image) * net.classes + o] = float(sum) * layer.scale[o] + layer.shift[o];
            }
            continue;
        }
        const auto row = [&](auto* counts) {
            using U = std::decay_t<decltype(*counts)>;
            const Source<U> from_ = {counts, 1, 0, lanes, offset(layer, o), layer.scale[o], layer.shift[o]};
            fire<false>(net, from_, Sink{own.row.data(), everyone.data(), bytes, 0, bytes});
        };
        if (net.neuron == SIGN || bits > 16) row(wide);
        else if (bits > 8) row((uint16_t*)wide);
        else row((uint8_t*)wide);
        for (int at = 0; at < length; at += TAP)
            memcpy(&dense[i + 1 - net.convs][(size_t(at / TAP) * layer.outputs + o) << shift], own.row.data() + at, std::min(TAP, length - at));
        if (trace && trace[i])
            for (int image = 0; image < count_; image++)
                for (int t = 0; t < steps; t++)
                    trace[i][(size_t(from + image) * steps + t) * layer.outputs + o] = own.row[t * bytes + image / 8] >> image % 8 & 1;
    }
}

}  // namespace
