"""Packed networks in NumPy: the path without a compiler, and what the kernel computes in a page.

Sums of whole numbers below 2**24 are exact in float32 in any order, so products by BLAS give the kernel's counts.
"""

import numpy as np

IMAGES = 32  # at once


def run(layers, images, worth, steps, neuron, beta, threshold):
    """Logits (N, classes) and {layer: spikes (N, T, ...)} of uint8 images (N, C, H, W) or frames (N, T, 2, H, W).

    neuron : "zero" or "subtract" (the LIF's reset), or "sign". worth : of a grey level of each channel, float32.
    """
    parts = [_part(layers, images[i : i + IMAGES], worth, steps, neuron, beta, threshold) for i in range(0, max(1, len(images)), IMAGES)]
    return np.concatenate([part[0] for part in parts]), {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}


def _part(layers, images, worth, steps, neuron, beta, threshold):
    n, x, found = len(images), None, {}
    for layer in layers:
        weight = layer.weight()
        if x is None:
            frames = images.reshape(-1, *images.shape[-3:])  # (N, or N T, C, H, W)
            current = _affine(_first(layer, weight, frames, worth), layer)
        else:
            signal = x.astype(np.float32) * 2 - 1 if neuron == "sign" else x.astype(np.float32)
            counts = convolve(signal, weight) if layer.kernel == 3 else signal.reshape(len(x), weight.shape[1]) @ weight.T
            if layer is layers[-1]:
                counts = counts.reshape(n, steps, layer.outputs).sum(1, dtype=np.int64).astype(np.float32)
                return _affine(counts, layer), found
            current = _affine(_pooled(counts) if layer.pool else counts, layer)
        current = current.reshape(n, len(current) // n if n else 1, *current.shape[1:])  # (N, T or 1, C, H, W)
        spikes = fire(np.broadcast_to(current, (n, steps, *current.shape[2:])), neuron, beta, threshold)
        found[layer.name], x = spikes, spikes.reshape(n * steps, *spikes.shape[2:])


def fire(current, neuron, beta, threshold):
    """The neuron over time: float32 currents (N, T, ...) to uint8 spikes of that shape."""
    if neuron == "sign":
        return (current >= 0).astype(np.uint8)
    beta, threshold, spikes = np.float32(beta), np.float32(threshold), np.empty(current.shape, np.uint8)
    for t in range(current.shape[1]):
        if t == 0:
            u = current[:, t]
        elif neuron == "zero":
            u = beta * np.where(spikes[:, t - 1], np.float32(0), u) + current[:, t]
        else:
            u = beta * u + current[:, t] - threshold * spikes[:, t - 1]
        spikes[:, t] = u > threshold
    return spikes


def _first(layer, weight, frames, worth):
    """Whole sums of grey levels, weighed channel by channel: (B, C, H, W) to (B, outputs, H, W)."""
    side = np.ones(layer.size, np.intp)
    side[0], side[-1] = 0, 2
    out = np.repeat(layer.base.reshape(-1, 3, 3)[:, side][:, :, side][None], len(frames), 0)
    for channel, value in enumerate(worth):
        part = weight.reshape(layer.outputs, -1, 9)[:, channel]
        out += convolve(frames[:, channel : channel + 1].astype(np.float32), part) * value
    return out


def convolve(x, weight):
    """3x3 convolution with padding: (B, C, H, W) by (outputs, C 9) to (B, outputs, H, W), float32."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # (B, C, H, W, 3, 3)
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(len(x), weight.shape[1], x.shape[2] * x.shape[3])
    return np.matmul(weight, columns).reshape(len(x), len(weight), *x.shape[2:])


def _pooled(x):
    """2x2 max-pool of (B, C, H, W); an odd last row or column is dropped."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :, : 2 * height, : 2 * width].reshape(*x.shape[:2], height, 2, width, 2).max((3, 5))


def _affine(x, layer):
    """count * scale + shift, rounded twice."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * layer.scale.reshape(shape) + layer.shift.reshape(shape)
