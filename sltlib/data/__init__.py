"""Data sets: what they are, where they come from, and how a split of one becomes tensors."""

from sltlib.data.catalogue import DATASETS, SPLITS, Info, balanced, info
from sltlib.data.formats import read_idx
from sltlib.data.loading import (
    Data,
    Split,
    augment,
    check,
    load_data,
    main,
    manifest,
    normalise,
    prepare,
    resize,
    table,
)

__all__ = [
    "DATASETS", "SPLITS", "Data", "Info", "Split", "augment", "balanced", "check", "info", "load_data", "main", "manifest",
    "normalise", "prepare", "read_idx", "resize", "table",
]  # fmt: skip
