"""Data sets: what they are, where they come from, and how a split of one becomes tensors."""

from sltlib.data.binary import read_idx
from sltlib.data.catalogue import DATASETS, info, version
from sltlib.data.commands import get, main, table, use
from sltlib.data.entry import Info
from sltlib.data.events import Recordings
from sltlib.data.loading import CHOICES, RANGES, Data, Split, forget, load_data
from sltlib.data.reading import check, examine, manifest
from sltlib.data.splits import SPLITS, balanced
from sltlib.data.transforms import augment, normalise, resize

__all__ = [
    "CHOICES", "DATASETS", "RANGES", "SPLITS", "Data", "Info", "Recordings", "Split", "augment", "balanced", "check", "examine",
    "forget", "get", "info", "load_data", "main", "manifest", "normalise", "read_idx", "resize", "table", "use", "version",
]  # fmt: skip
