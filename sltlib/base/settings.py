"""Every environment variable of this project, in one place.

A relative path in one of them means the folder in which the process started (a notebook's kernel: in which
Jupyter was started). It is made absolute once, so that kernels and workers, which start elsewhere, read the same.
"""

import math
import os
from pathlib import Path

VARIABLES = {
    "SLT_STORE": "folder of the trained results (.slt)",
    "SLT_RESULTS": "folder of figures and tables (results)",
    "SLT_DATA": "folder of the data sets (data)",
    "SLT_DEVICE": "where training runs, as torch names it: cpu, cuda, cuda:1 (a GPU if there is one)",
    "SLT_COMPILE": "0 switches the compiler of the fused neuron off",
    "SLT_CHECKPOINT_S": "seconds between two checkpoints of a training (20)",
    "SLT_PROFILE": "the profile whose parameters a notebook has; the figure command sets it",
    "SLT_STATUS": "file that says how far a run is, as JSON; the figure command sets it",
    "SLT_QUIET": "1 shows no progress (as CI=1 does)",
    "SLT_TRACEBACK": "1 shows the whole traceback of a command's error",
    "SLT_NO_REEXEC": "1 keeps a command from starting itself again with the allocator's variables",
}
PATHS = ("SLT_STORE", "SLT_RESULTS", "SLT_DATA", "SLT_STATUS")


def get(name: str) -> str:
    """A variable's text, "" where it is not set; KeyError for one that is not in VARIABLES."""
    VARIABLES[name]
    text = os.environ.get(name, "")
    return str(START / Path(text).expanduser()) if text and name in PATHS else text


def number(name: str, default: float) -> float:
    """A variable that holds a number of at least 0; ValueError names it where it does not."""
    text = get(name)
    try:
        value = float(text or default)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={text}: give a number of at least 0 ({VARIABLES[name]})")
    return value


def _started():
    """The folder in which this process started, or the Jupyter that started this kernel."""
    parent = os.environ.get("JPY_PARENT_PID", "")
    if parent == str(os.getppid()):  # a kernel starts in its notebook's folder, which nobody chose
        import psutil

        try:
            return Path(psutil.Process(int(parent)).cwd())
        except (psutil.Error, OSError):
            pass
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was removed meanwhile: relative paths lead nowhere
        return Path("/")


START = _started()
for _name in PATHS:
    if os.environ.get(_name):
        os.environ[_name] = get(_name)
