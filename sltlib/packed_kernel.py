"""The compiled kernel of sltlib.packed: built once by a C++ compiler, kept in the user's cache, called by ctypes.

The compiler sees the processor it runs on, so vectors are as wide as it has them (AVX-512, AVX2, SSE2, NEON);
the cache's name holds the source, the compiler and the processor's features.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from sltlib.base import files, machine, settings
from sltlib.packed_layer import ARRAYS

SOURCE = Path(__file__).with_name("packed.cpp")
# One rounding for each operation (no contraction to fused multiply-adds): the same bits as NumPy's.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-pthread")
NEURONS = {"zero": 0, "subtract": 1, "sign": 2}


class _Layer(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int32) for n in ("inputs", "outputs", "size", "pool")] + [
        (n, ctypes.c_void_p) for n in ("deltas", "begin", "plus", "scale", "shift", "sums", "base")
    ]


class _Net(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_int32) for n in ("layers", "convs", "steps", "frames", "neuron", "channels", "classes", "unused")]
        + [("beta", ctypes.c_float), ("threshold", ctypes.c_float)]
        + [("pixel", ctypes.c_void_p), ("layer", ctypes.c_void_p)]
    )


def compiler():
    """The C++ compiler's path: `$CXX`, else the first of c++, g++ and clang++ there is, else None."""
    named = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, named)), None)


def cache() -> Path:
    """Where built kernels lie: `$XDG_CACHE_HOME` or ~/.cache, sltlib below."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sltlib"


def _features():
    """What tells this processor's instructions from another's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def build(more=()):
    """The path of the built library, made if it is not in the cache. Raises RuntimeError saying why it cannot be."""
    program = compiler()
    if program is None:
        raise RuntimeError("There is no C++ compiler (c++, g++ or clang++; set CXX if it is elsewhere).")
    stat = Path(program).resolve().stat()
    text = [path.read_text() for path in sorted(SOURCE.parent.glob("packed*.[ch]pp"))]
    what = [*text, *FLAGS, *more, program, str(stat.st_size), str(stat.st_mtime_ns), _features()]
    name = f"packed-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:16]}.so"
    for folder in (cache(), Path(tempfile.gettempdir()) / f"sltlib-{os.getuid() if hasattr(os, 'getuid') else 'user'}"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                raise PermissionError(f"{folder} is somebody else's")  # what lies there would run as this user
            if _whole(folder / name):
                return folder / name
            with tempfile.TemporaryDirectory(dir=folder) as place:
                made = Path(place) / name
                compiled(program, made, more)
                files.write(_seal(folder / name), files.sha256(made.read_bytes()))
                os.replace(made, folder / name)
            return folder / name
        except OSError as error:
            problem = error
    raise RuntimeError(f"The kernel cannot be written: {problem}.")


def _seal(path):
    return path.with_suffix(".sha256")


def _whole(path):
    """Whether a built library is as it was built: one with a flipped bit would crash, or worse, count wrong."""
    try:
        return _seal(path).read_text() == files.sha256(path.read_bytes())
    except FileNotFoundError:
        return False


def compiled(program, made, more=(), source=SOURCE):
    """Build a library at the path `made` with the flags of every kernel; RuntimeError with what the compiler says."""
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    done = subprocess.run([program, *FLAGS, native, *more, "-o", made, source], capture_output=True, text=True)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise RuntimeError(f"{program} cannot build the kernel: {said}")


@functools.cache
def _library():
    """(library, None), or (None, why there is none)."""
    if settings.get("SLT_COMPILE") == "0":
        return None, "SLT_COMPILE=0 asks for no compiler."
    try:
        return ctypes.CDLL(str(build())), None
    except (RuntimeError, OSError) as error:
        return None, str(error)


def problem():
    """Why there is no compiled kernel, or None."""
    return _library()[1]


def instructions():
    """What the kernel was built for: "AVX-512", "AVX2", "128-bit", or "NumPy" where there is none."""
    library, _ = _library()
    return "NumPy" if library is None else {64: "AVX-512", 32: "AVX2"}.get(library.packed_bytes(), "128-bit")


def run(packed, images, threads=None, trace=False, library=None, group=0):
    """Logits of uint8 images (checked before) and, if asked, every layer's spikes: see Packed.spikes."""
    library = library or _library()[0]
    e, count, steps = packed.experiment, len(images), packed.steps
    layers = (_Layer * len(packed.layers))(*[
        _Layer(x.inputs, x.outputs, x.size, x.pool, *[getattr(x, name).ctypes.data for name in ARRAYS]) for x in packed.layers
    ])
    pixel, images = packed.worth, np.ascontiguousarray(images)
    convs, classes = sum(x.kernel == 3 for x in packed.layers), packed.layers[-1].outputs
    frames = steps if e.event else 1
    net = _Net(
        len(layers), convs, steps, frames, NEURONS[packed.neuron], len(packed.std), classes, 0,
        e.beta, e.threshold, pixel.ctypes.data, ctypes.addressof(layers),
    )  # fmt: skip
    found, places = {}, (ctypes.c_void_p * len(layers))()
    if trace:
        for i, x in enumerate(packed.layers[:-1]):
            side = x.size // 2 if x.pool else x.size
            found[x.name] = np.empty((count, steps, x.outputs, *((side, side) if x.kernel == 3 else ())), np.uint8)
            places[i] = found[x.name].ctypes.data
    logits = np.empty((count, classes), np.float32)
    if count and library.packed_run(
        ctypes.byref(net), ctypes.c_void_p(images.ctypes.data), ctypes.c_int64(count), ctypes.c_void_p(logits.ctypes.data),
        int(threads or machine.cores()), group, places if trace else None,
    ):  # fmt: skip
        raise MemoryError(f"no memory for {count} images of {images[0].size} bytes in a packed network")
    return logits, found
