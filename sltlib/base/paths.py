"""Every folder this project reads or writes, absolute, in one place."""

from pathlib import Path

from sltlib.base import settings

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "sltlib"
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params.yaml"


def data() -> Path:
    """Where data sets live: `$SLT_DATA`, else `data/` at the repository's root."""
    return Path(settings.get("SLT_DATA") or ROOT / "data")


def store() -> Path:
    """Where results of trainings live: `$SLT_STORE`, else `.slt/` at the root."""
    return Path(settings.get("SLT_STORE") or ROOT / ".slt")


def results() -> Path:
    """Where figures and tables land: `$SLT_RESULTS`, else `results/` at the root."""
    return Path(settings.get("SLT_RESULTS") or ROOT / "results")
