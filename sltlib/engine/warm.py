"""Run the compiler once in the process that workers are forked from: each of them starts two seconds earlier.

Imports nothing else of sltlib, so that workers see the other modules as they are when they start. Does nothing
where compilers start threads or processes of their own (a fork would lose them) or where nothing is compiled.
"""

import contextlib
import os
import threading

import torch
from tqdm import tqdm


def warm_up():
    """Compile a kernel that nobody needs; returns whether that was done."""
    alone = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS") == os.environ.get("OMP_NUM_THREADS") == "1"
    if os.environ.get("SLT_COMPILE") == "0" or not alone:
        return False
    tqdm.monitor_interval = 0  # the compiler shows its progress by it: no thread for that, and no semaphore
    tqdm.set_lock(threading.RLock())
    with contextlib.suppress(Exception):  # without a C++ compiler the neuron says so, in the worker
        torch.compile(lambda x: (x > 0).to(x.dtype) * x, dynamic=True)(torch.zeros(64))
        return True
    return False


warm_up()
