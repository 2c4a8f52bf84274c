"""What machine this is, and how a process that trains is set up on it."""

import os
import platform
import socket
import sys
import uuid
from pathlib import Path

from sltlib.base import settings

# What a process that trains wants in its environment before it starts: memory in huge pages,
# kept instead of given back (glibc's and torch's own switches), and one thread a training.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "THP_MEM_ALLOC_ENABLE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # one kernel to compile: no pool of compiler processes
}
_FIRST_NAMESPACE = 4026531836  # Linux's own number of the process ids outside all containers


def check_supported():
    """RuntimeError on a system that this project does not run on: it needs Linux or macOS."""
    if sys.platform not in ("linux", "darwin"):
        raise RuntimeError(
            f"sltlib runs on Linux and macOS, and this is {platform.system() or sys.platform}:"
            " on Windows use WSL 2 (Windows Subsystem for Linux), where it is Linux"
        )


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place() -> str:
    """Where a process id means this process: the host, its start, and the container where it is one.

    Two machines, or two containers, of one name are two places.
    """
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
        start = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # no Linux
        space, start = _FIRST_NAMESPACE, f"{uuid.getnode():x}"
    return f"{socket.gethostname()}-{start}" + ("" if space == _FIRST_NAMESPACE else f"-{space:x}")


def started(pid: int) -> str:
    """When a process of this machine started, in words of the kernel: tells it from a later one of its id; "" if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's · no number of a process: nobody's to judge
        pass
    return True


def device():
    """Where training runs: `$SLT_DEVICE`, else a GPU if there is one, else the CPU (a torch.device)."""
    import torch

    return torch.device(settings.get("SLT_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware() -> dict:
    """Device, threads and versions of the libraries that numbers depend on: a part of every provenance."""
    import numpy
    import snntorch
    import torch

    where = device()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "versions": versions | {"snntorch": snntorch.__version__, "numpy": numpy.__version__},
    }
