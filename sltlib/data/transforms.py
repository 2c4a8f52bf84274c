"""What is done to images and frames on their way into a network: area averages, normalising, augmenting."""

from __future__ import annotations

import numpy as np

AUGMENTS = ("none", "crop", "crop-flip", "crop-flip-cutout")


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Area averages of uint8 images (..., H, W) -> (..., size, size), halves rounded up.

    Pixel i is the mean over rows floor(i H / size) up to ceil((i + 1) H / size), as in adaptive
    average pooling; in whole numbers, so that every machine gets the same bytes.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    rows, columns = _windows(height, size), _windows(width, size)  # (size, H), (size, W)
    area = np.outer(rows.sum(1), columns.sum(1)).astype(np.int64)
    kind = np.float32 if 255 * area.max() < 2**24 else np.float64  # sums are exact below 2**24, or 2**53
    out = np.empty((*images.shape[:-2], size, size), np.uint8)
    for start in range(0, len(images), 1000):  # a part at a time: float32 takes four times the memory
        part = slice(start, start + 1000)
        sums = (rows.astype(kind) @ images[part].astype(kind) @ columns.T.astype(kind)).astype(np.int64)
        out[part] = (2 * sums + area) // (2 * area)
    return out


def _windows(size, new):
    i, pixel = np.arange(new)[:, None], np.arange(size)
    return ((pixel >= i * size // new) & (pixel < -(-(i + 1) * size // new))).astype(np.float32)


def moments(x):
    """Of uint8 images (N, C, H, W): mean and standard deviation of each channel in 0..1, from whole-number counts: exact anywhere."""
    mean, std = [], []
    for n, first, second in _sums(x):
        mean.append(first / (255 * n))
        std.append((n * second - first**2) ** 0.5 / (255 * n) or 1.0)  # a blank channel is left as it is
    return tuple(mean), tuple(std)


def scale(x):
    """Of frames (N, T, C, H, W) of whole counts: 0 for each channel, and the root mean square, 255 counting as 1."""
    std = tuple((second / n) ** 0.5 / 255 or 1.0 for n, _, second in _sums(x))
    return (0.0,) * len(std), std


def _sums(x):
    """For each channel how many values there are, their sum and the sum of their squares; whole numbers."""
    longest = max(256, int(x.max()) + 1)
    for channel in range(x.shape[-3]):
        counts = 0
        for part in x.select(-3, channel).split(1000):  # a part at a time: what is not contiguous is copied
            counts = counts + part.reshape(-1).bincount(minlength=longest)
        counts = counts.tolist()
        yield (
            sum(counts),
            sum(value * count for value, count in enumerate(counts)),
            sum(value * value * count for value, count in enumerate(counts)),
        )


def normalise(x, mean, std):
    """Pixels or counts (..., C, H, W) -> float32 (x / 255 - mean) / std; mean and std have C values."""
    import torch

    scale = torch.tensor([1 / (255 * s) for s in std], device=x.device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=x.device)[:, None, None]
    return torch.addcmul(shift, x.to(torch.float32), scale)


def augment(x, kind: str, generator):
    """A random view of each image of a batch, x (B, C, H, W) or frames (B, T, 2, H, W); the same dtype.

    kind : one of `AUGMENTS`. "crop" pads with zeros by an eighth of the size and
        cuts at random; "flip" mirrors left-right with probability 1/2; "cutout" blanks a square of
        half the size around a random pixel. All frames of a recording share one view.
    generator : torch.Generator; it is left alone by "none" only.
    """
    import torch

    if kind not in AUGMENTS:
        raise ValueError(f"augment={kind!r}: choose from {', '.join(AUGMENTS)}")
    if kind == "none":
        return x
    if generator is None:
        raise ValueError(f"augment={kind!r} needs a torch.Generator, got None")
    batch, height, width = x.shape[0], x.shape[-2], x.shape[-1]

    def draw(high):
        return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(x.device)

    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    # where each row and each column of the view comes from
    rows = torch.arange(height, device=x.device) + draw(2 * pad_y + 1) - pad_y  # (B, H)
    columns = torch.arange(width, device=x.device) + draw(2 * pad_x + 1) - pad_x  # (B, W)
    if "flip" in kind:
        columns = torch.where(draw(2).bool(), columns.flip(1), columns)
    inside = _between(rows, 0, height)[:, :, None] & _between(columns, 0, width)[:, None]  # (B, H, W)
    if "cutout" in kind:
        top, left = draw(height) - height // 4, draw(width) - width // 4
        cut_y = _between(torch.arange(height, device=x.device), top, top + height // 2)
        cut_x = _between(torch.arange(width, device=x.device), left, left + width // 2)
        inside &= ~(cut_y[:, :, None] & cut_x[:, None])
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]  # (B, H, W)
    flat = x.reshape(batch, -1, height * width)  # (B, C, H W)
    view = flat.gather(2, source.reshape(batch, 1, -1).expand_as(flat))
    return (view * inside.reshape(batch, 1, -1)).reshape(x.shape)


def _between(x, low, high):
    return (x >= low) & (x < high)
