"""Make data/fashion/fashion-sample.xz, the class-balanced sample of Fashion-MNIST in this repository.

    python data/make_fashion_sample.py [FOLDER]

FOLDER holds the four official idx .gz files; Debian's package dataset-fashion-mnist puts them
where this script looks by default. 8,000 training and 1,000 validation images come from the
official training set, 2,000 test images from the official test set, by a fixed seed. The hashes
of the sources' contents and of the sample are pinned in sltlib/data/catalogue.py. A sample that differs
from the pinned one is not written: so running this again verifies the file that is there.

The sample is the xz of 11,000 rows of 785 bytes: the label, then 28x28 pixels.
"""

import hashlib
import lzma
import sys
from pathlib import Path

import numpy as np

from sltlib import data
from sltlib.base import files


def build(source: Path) -> bytes:
    """The sample's bytes from the idx files in `source`; ValueError unless they are the official ones."""
    sample, (train, test) = data.DATASETS["fashion"], data.read_idx(data.DATASETS["fashion-mnist"], source)
    held_in = sample.counts["train"] + sample.counts["val"]
    rows = []
    for (images, labels), count in ((train, held_in), (test, sample.counts["test"])):
        chosen = data.balanced(labels)[:count]  # classes take turns, so each split is balanced
        pixels = images[chosen].reshape(count, -1)
        rows.append(np.concatenate([labels[chosen, None].astype(np.uint8), pixels], axis=1))
    # Every setting is spelled out: another default in a newer liblzma must not change the bytes.
    how = {"dict_size": 1 << 24, "lc": 4, "lp": 0, "pb": 0, "mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT4}
    filters = [{"id": lzma.FILTER_LZMA2, "nice_len": 64, "depth": 0, **how}]
    return lzma.compress(np.concatenate(rows).tobytes(), lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)


def main(source=None, target=None) -> int:
    """Build, compare with the pinned hash, write; 1 and one line on stderr when it is not to be trusted."""
    target = Path(target or Path(__file__).resolve().parent / "fashion")
    full, ((name, pinned),) = data.DATASETS["fashion-mnist"], data.DATASETS["fashion"].sha256.items()
    folder = Path(source) if source else full.find()
    try:
        if folder is None:
            raise ValueError(f"no idx files found: {full.how}")
        made = build(folder)
        found = hashlib.sha256(made).hexdigest()
        if found != pinned:
            raise ValueError(f"the sample would be {len(made):,} bytes with sha256 {found}, not {pinned}")
        files.write(target / name, made)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target / name}: {len(made):,} bytes, sha256 as pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
