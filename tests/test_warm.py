"""The server that workers are forked from has run the compiler, has no thread, and holds no other part of sltlib."""

import json
import os
import subprocess
import sys

import pytest

SAY = """
import json, sys, threading
import sltlib.engine.warm
held = [name for name in sys.modules if name.startswith("sltlib")]
print(json.dumps([held, threading.active_count(), "torch._inductor.scheduler" in sys.modules, sltlib.engine.warm.warm_up()]))
"""
ALONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1", "SLT_COMPILE": "1"}


def said(**changes):
    done = subprocess.run([sys.executable, "-c", SAY], env=os.environ | ALONE | changes, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_compiler_has_run_and_left_no_thread():
    assert said() == [["sltlib", "sltlib.engine", "sltlib.engine.warm"], 1, True, True]


@pytest.mark.parametrize("changes", [dict(SLT_COMPILE="0"), dict(TORCHINDUCTOR_COMPILE_THREADS="2")])
def test_it_does_nothing_where_nothing_is_compiled_or_the_compiler_has_helpers(changes):
    assert said(**changes)[2:] == [False, False]


def test_without_a_compiler_the_server_starts_all_the_same(tmp_path):
    nothing = dict(CXX=str(tmp_path / "none"), PATH=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert said(**nothing)[3] is False
