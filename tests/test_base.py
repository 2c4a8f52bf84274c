"""The ground floor: files that are whole or absent, settings, progress, the machine."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import disk_full_after

from sltlib.base import files, machine, paths, progress, settings, words

ROOT = Path(__file__).resolve().parent.parent


# --- files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write(path, "µ", b"\n")
    assert path.read_bytes() == b"\xc2\xb5\n"
    with disk_full_after(4096), pytest.raises(OSError, match=f"{path}'?$"):
        files.write(path, "x" * 10000)
    assert [p.read_text() for p in path.parent.iterdir()] == ["µ\n"]


@pytest.mark.parametrize("key", ["12345678901234567890", "4239e469279095633760", "00000000000000000001", "1e5"])
def test_a_key_is_read_as_text_whatever_its_digits(tmp_path, key):
    """One key in 4000 is a number to a reader of CSVs, and then the column's only one."""
    for lines in ("row,key,network,score\na,{0},{0},1.5\n", "row,key,network,score\na,{0},{0},1.5\nb,,,2\n"):
        (tmp_path / "a.csv").write_text(lines.format(key))
        table = files.table(tmp_path / "a.csv")
        assert (table.key[0], table.network[0], table.score[0]) == (key, key, 1.5) and table.key.dropna().size == 1


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    files.write(path, "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open" if call == "open" else f"os.{call}", full)
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            files.write(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (order.append(name), real(*a)))
    files.write(tmp_path / "a", "x")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name
    order.clear()
    files.write(tmp_path / "a", "x", durable=False)
    assert order == ["replace"]


def test_leftovers_are_those_of_the_dead_of_this_place(tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = files.scratch(tmp_path / "a.b")
    dead = files.scratch(tmp_path / "a.b").name.replace(f".{os.getpid()}.", f".{child.pid}.")
    other = dead.replace(machine.place(), "elsewhere.net")
    for name in (mine.name, dead, other, "a.b.c.d", ".a.txt", f"x.{machine.place()}.word.12345678"):
        (tmp_path / name).write_text("")
    assert files.owner(mine) == (machine.place(), os.getpid())
    assert [path.name for path in files.leftovers(tmp_path)] == [dead]
    files.sweep(tmp_path)
    assert dead not in os.listdir(tmp_path) and len(os.listdir(tmp_path)) == 5
    assert files.leftovers(tmp_path / "absent") == []


def test_two_containers_with_one_name_are_two_places(monkeypatch):
    here, real = machine.place(), os.stat
    number = real("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0

    def elsewhere(path, *arguments, **named):
        if path == "/proc/self/ns/pid":
            return os.stat_result([0, number + 7, *[0] * 8])
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "stat", elsewhere)
    assert machine.place() != here


def test_values_become_plain_or_the_entry_is_named():
    value = {"a": np.float32(0.1), 2: [np.int64(3), float("inf")], "c": (True, None, "x")}
    assert words.plain(value) == {"a": float(np.float32(0.1)), "2": [3, None], "c": [True, None, "x"]}
    assert words.plain({"a": 1 / 3, "n": 12345678}, digits=3) == {"a": 0.333, "n": 12345678}
    with pytest.raises(TypeError, match=r"metrics\.a\[1\] is a set"):
        words.plain({"a": [1, {2}]}, "metrics")
    assert files.json_text({"b": 1, "a": 2}) == '{\n "a": 2,\n "b": 1\n}\n'


# --- settings

READS = re.compile(r"SLT_[A-Z_]+")


def test_every_variable_that_is_read_is_listed_and_every_listed_one_is_read():
    places = [path for path in (ROOT / "sltlib").rglob("*.py") if path.name != "settings.py"]
    read = {name for path in places for name in READS.findall(path.read_text())}
    assert read == settings.VARIABLES.keys()


def test_the_help_lists_the_variables(capsys):
    from sltlib.__main__ import main

    main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said and words in said for name, words in settings.VARIABLES.items())


RELATIVE = """
import os, subprocess, sys
from sltlib.base import paths
print(paths.store(), paths.results(), paths.data())
os.chdir("/")
print(paths.store(), paths.results(), paths.data())
show = "from sltlib.base import paths; print(paths.store(), paths.results(), paths.data())"
subprocess.run([sys.executable, "-c", show], cwd="/", check=True)
"""


def test_a_relative_path_means_one_place_here_and_in_every_child(tmp_path):
    env = os.environ | {"SLT_STORE": "a", "SLT_RESULTS": "b/c", "SLT_DATA": "../d", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", RELATIVE], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    want = f"{tmp_path}/a {tmp_path}/b/c {tmp_path}/../d"
    assert done.stdout.splitlines() == [want] * 3


KERNEL = """
import subprocess, sys, os
show = "from sltlib.base import paths; print(paths.store())"
env = os.environ | {"JPY_PARENT_PID": str(os.getpid())}
subprocess.run([sys.executable, "-c", show], cwd="/", env=env, check=True)
"""


def test_in_a_kernel_a_relative_path_is_from_where_jupyter_started(tmp_path):
    env = os.environ | {"SLT_STORE": "a", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KERNEL], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path}/a"


def test_a_setting_is_a_number_or_named(monkeypatch):
    monkeypatch.delenv("SLT_CHECKPOINT_S", raising=False)
    assert settings.number("SLT_CHECKPOINT_S", 20) == 20
    for text in ("soon", "nan", "-1", "inf"):
        monkeypatch.setenv("SLT_CHECKPOINT_S", text)
        with pytest.raises(ValueError, match=f"SLT_CHECKPOINT_S={text}: give a number"):
            settings.number("SLT_CHECKPOINT_S", 20)
    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    assert settings.number("SLT_CHECKPOINT_S", 20) == 0
    with pytest.raises(KeyError):
        settings.get("SLT_STROE")
    monkeypatch.delenv("SLT_STORE")
    assert paths.store() == paths.ROOT / ".slt"


# --- progress


@pytest.mark.parametrize("name", ["CI", "SLT_QUIET", "SLT_STATUS", "no terminal", None])
def test_bars_are_shown_by_one_rule(monkeypatch, tmp_path, name):
    for other in ("CI", "SLT_QUIET", "SLT_STATUS"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: name != "no terminal")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if name and name != "no terminal":
        monkeypatch.setenv(name, str(tmp_path / "status"))
    assert progress.shown() is (name is None) and progress.quiet() is (name in ("CI", "SLT_QUIET"))
    with progress.bar("reading", 3) as shown:
        assert shown.disable is (name is not None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def status(path, done=12, fraction=0.2, left=360.0):
    path.write_text(json.dumps({"done": done, "total": 60, "fraction": fraction, "left_s": left}))


@pytest.fixture
def loud(monkeypatch):
    monkeypatch.delenv("SLT_QUIET", raising=False)
    monkeypatch.delenv("CI", raising=False)


def test_the_status_line_of_a_terminal_is_one_line_that_goes_away(tmp_path, loud):
    stream, path = Terminal(), tmp_path / "status"
    with progress.StatusLine("02 (mini)", path, stream) as line:
        line.draw()
        assert stream.getvalue() == "", "nothing trains yet"
        status(path)
        line.draw()
        status(path, 13, 0.21, None)
        line.draw()
    first, second = "02 (mini): 12/60 trainings, 20 %, 6 min left", "02 (mini): 13/60 trainings, 21 %"
    assert stream.getvalue().startswith("\r" + first + "\r" + second.ljust(len(first)))
    assert stream.getvalue().endswith("\r" + " " * len(second) + "\r")


def test_the_status_line_of_a_log_is_a_line_now_and_then(tmp_path, loud):
    stream, path = io.StringIO(), tmp_path / "status"
    status(path)
    line = progress.StatusLine("a", path, stream, every=30)
    line.draw()
    assert stream.getvalue() == ""
    line.printed -= 31
    line.draw()
    status(path, 13)
    line.draw()
    assert stream.getvalue() == "a: 12/60 trainings, 20 %, 6 min left\n"


def test_a_status_that_cannot_be_read_shows_nothing_and_quiet_is_quiet(tmp_path, loud, monkeypatch):
    path = tmp_path / "status"
    path.write_text('{"done": ')
    assert progress.StatusLine("a", path).line() == ""
    status(path)
    monkeypatch.setenv("CI", "1")
    stream = Terminal()
    progress.StatusLine("a", path, stream).draw()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("seconds, text", [(0, "0 s"), (89, "89 s"), (95, "2 min"), (7200, "2.0 h")])
def test_a_duration_is_said_in_its_unit(seconds, text):
    assert words.duration(seconds) == text


def test_an_unknown_name_gets_a_close_one_or_all():
    assert words.close("figre", ["figure", "data"]) == " (did you mean figure?)"
    assert words.close("xyz", ["figure", "data"]) == " (there are: figure, data)"


# --- the machine


@pytest.mark.parametrize("system, right", [("linux", True), ("darwin", True), ("win32", False), ("freebsd14", False)])
def test_other_systems_are_told_early(monkeypatch, system, right):
    monkeypatch.setattr(sys, "platform", system)
    with contextlib.nullcontext() if right else pytest.raises(RuntimeError, match="Linux and macOS.*WSL 2"):
        machine.check_supported()


def test_a_process_is_alive_or_not():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert machine.alive(os.getpid()) and machine.alive(child.pid)
    child.kill()
    child.communicate()
    assert not machine.alive(child.pid)


def test_cores_and_names_are_those_of_this_machine():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert machine.processor()
    assert machine.hardware().keys() == {"device", "threads", "versions"}
