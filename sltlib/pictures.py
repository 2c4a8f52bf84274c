"""Pictures of the data: images, recordings in space and time, event frames in colour, patches that were removed."""

from __future__ import annotations

import numpy as np

from sltlib.style import COLUMN, OFF, ON, PAGE, new


def images(pictures, titles=None, columns: int = 10, width: float = PAGE, colours: str = "gray"):
    """A grid of small pictures, (N, H, W), (N, 1, H, W) or (N, 3, H, W); grey ones share one scale.

    Recordings (N, T, 2, H, W) are drawn as the sum of their frames, ON and OFF in colour.
    titles : N strings; colours : a matplotlib colour map for those of one channel.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim == 5 and pictures.shape[2] == 2:
        pictures = frame_pictures(pictures.sum(1, dtype=np.int64))
    if pictures.ndim not in (3, 4):
        raise ValueError(f"pictures has the shape {pictures.shape}: give (N, H, W), (N, 3, H, W) or (N, T, 2, H, W)")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles has {len(titles)} strings for {len(pictures)} pictures")
    if pictures.ndim == 4:
        pictures = np.moveaxis(pictures, 1, -1)
        pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = width / columns
    tall = cell * pictures.shape[1] / pictures.shape[2] + (0.16 if titles is not None else 0.02)
    fig, axes = new(width, rows * tall, rows, columns, squeeze=False)
    limits = {"vmin": pictures.min(), "vmax": pictures.max()} if pictures.ndim == 3 else {}
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(pictures):
            ax.imshow(pictures[i], cmap=colours, interpolation="nearest", **limits)
            if titles is not None:
                ax.set_title(titles[i], fontsize=6, pad=2)
    return fig


def recording(found, sensor, most: int = 6000, ax=None):
    """The events of a recording in space and time, ON and OFF, as points in three dimensions.

    found : structured array with t (microseconds), x, y and p, as from `sltlib.data.events`. sensor : its
    (height, width) in pixels. most : of longer recordings every n-th event is drawn.
    """
    if ax is None:
        fig, ax = new(COLUMN, 2.6, subplot_kw={"projection": "3d"})
    fig = ax.figure
    shown = found[:: -(-len(found) // most) or 1]
    for colour, polarity, label in ((ON, 1, "ON"), (OFF, 0, "OFF")):
        part = shown[shown["p"] == polarity]
        ax.scatter(part["t"] / 1000, part["x"], sensor[0] - 1 - part["y"].astype(int), s=1, color=colour,
                   linewidths=0, alpha=0.6, label=label, rasterized=True)  # fmt: skip
    ax.set(xlabel="time (ms)", ylabel="x (pixels)", zlabel="y (pixels)", ylim=(0, sensor[1]), zlim=(0, sensor[0]))
    ax.set_box_aspect((2, 1, 1), zoom=0.95)
    ax.locator_params(nbins=4)
    ax.view_init(elev=18, azim=-62)
    ax.tick_params(labelsize=5, pad=-2)
    return fig


def frame_pictures(frames, full=None):
    """Frames of event counts (..., 2, H, W) as colours (..., 3, H, W) in 0..1 for `images`: white is none.

    full : the count that has its full colour, by default the 99th percentile of those above 0.
    """
    frames = np.asarray(frames, np.float64)
    if full is None:
        full = np.percentile(frames[frames > 0], 99) if (frames > 0).any() else 1.0
    strength = np.clip(frames / full, 0, 1)[..., None, :, :]  # (..., 2, 1, H, W)
    ink = 1 - np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (OFF, ON)])  # (2, 3)
    return np.clip(1 - (strength * ink[:, :, None, None]).sum(-4), 0, 1)


def faded(pictures, index, side: int):
    """Images (N, C, H, W) or recordings (N, T, 2, H, W), uint8, in colours (N, 3, H, W): a veil is on removed patches.

    index : (N, K), the patches that stay, numbered row by row. side : patches along a side.
    """
    pictures = np.asarray(pictures)
    colours = frame_pictures(pictures.sum(1, dtype=np.int64)) if pictures.ndim == 5 else pictures / 255
    colours = np.broadcast_to(colours, (len(colours), 3, *colours.shape[2:]))
    kept = np.zeros((len(colours), side * side), bool)
    kept[np.arange(len(colours))[:, None], index] = True
    height, width = colours.shape[2:]
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    kept = kept.reshape(-1, side, side)[:, rows[:, None], columns]  # (N, H, W)
    veil = np.array([0.86, 0.78, 0.86])[:, None, None]  # neither black nor white, which images are full of
    return np.where(kept[:, None], colours, 0.2 * colours + 0.8 * veil)
