"""`python -m sltlib predict TICKET IMAGE...`: what a packed ticket says of pictures."""

import argparse
import time
from pathlib import Path

import numpy as np

from sltlib import data
from sltlib.packed import Packed, is_packed


def load(path):
    """The network of a packed file, or of a ticket (which needs its data set for the pixels' mean and deviation)."""
    if is_packed(path):
        return Packed.load(path)
    from sltlib.ticket import Ticket

    return Ticket.load(path).pack()


def read(path, shape):
    """A picture as uint8 (C, H, W): grey or RGB as the network has it, area-averaged to its size.

    Raises ValueError where the file is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    channels, size, _ = shape
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read: {error}") from None
    return data.resize(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1), size)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m sltlib predict",
        description="Classify pictures by a ticket: its class, milliseconds and logits, a line each. Pictures are taken as they"
        " are, squeezed to the network's size: Fashion-MNIST's, say, are white on black.",
    )
    parser.add_argument("ticket", metavar="TICKET", help="a ticket's file, or one that Packed.save wrote (starts faster)")
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="PNG, JPEG, ...")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the packed network too")
    given = parser.parse_args(argv)
    packed = load(given.ticket)
    if packed.experiment.event:
        raise ValueError(f"{given.ticket} classifies recordings ({packed.experiment.dataset}), not pictures")
    classes = data.info(packed.experiment.dataset).classes
    pictures = [read(path, packed.input_shape) for path in given.images]
    packed.predict(np.stack(pictures[:1]), threads=given.threads)  # builds the kernel where it is not built yet
    for path, picture in zip(given.images, pictures, strict=True):
        begin = time.perf_counter()
        logits = packed.predict(picture[None], threads=given.threads)[0]
        taken = 1e3 * (time.perf_counter() - begin)
        print(f"{path}\t{classes[int(logits.argmax())]}\t{taken:.2f} ms\t{' '.join(f'{x:.3f}' for x in logits)}")
    if given.save:
        packed.save(given.save)
    return 0
