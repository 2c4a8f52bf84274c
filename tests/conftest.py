"""What all tests share: a store and results of their own, and copies of the repository to run in."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from sltlib.engine import kernels

ROOT = Path(__file__).resolve().parent.parent
# Before torch is imported: one thread a training, as everywhere, and compiled kernels kept.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels.folder(ROOT / ".slt" / "tests")))


@contextlib.contextmanager
def disk_full_after(size):
    """No file grows beyond so many bytes: the kernel refuses the write, as on a full disk.

    Lifted within the test: pytest may report into a larger file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


settings.register_profile("slt", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("slt")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test reads or writes the reader's store and results, or their settings."""
    for name in ("SLT_STATUS", "SLT_PROFILE", "SLT_DATA", "SLT_COMPILE", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SLT_QUIET", "1")


def pytest_collection_modifyitems(items):
    """The long ones first, so that at the end no process waits for another's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class Project:
    """A copy of the repository in a folder of its own, to run commands in."""

    def __init__(self, root: Path):
        self.root = root
        # Nor is it told by `make test` that it runs within a make, which would then say where it is.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLT_", "DVC_", "MAKE", "MFLAGS"))}
        # This copy's sltlib, whatever the working directory, and this environment's programs.
        self.env |= {"PYTHONPATH": str(root), "CI": "1", "DVC_NO_ANALYTICS": "1"}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(self, *command, check=True, timeout=600, **env):
        """Run a command to its end; its output is in the failure's message."""
        done = subprocess.run(
            [str(c) for c in command],
            cwd=self.root,
            env=self.env | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout[-6000:]}"
        return done

    def start(self, *command, **env):
        """Start a command in a session of its own and return at once."""
        return subprocess.Popen(
            [str(c) for c in command],
            cwd=self.root,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def git(self, *command):
        who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
        return self.run("git", *who, *command)

    def commit(self):
        """Commit everything that git does not ignore."""
        if not (self.root / ".git").is_dir():
            self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "test")

    def notebook(self, name, *cells, parameters=None):
        """Write a notebook: the parameters cell, then these code cells."""
        write_notebook(self.root / "notebooks" / f"{name}.ipynb", *cells, parameters=parameters)


def write_notebook(path, *cells, parameters=None):
    """Write a notebook of code cells; the first holds the parameters (source text), if given."""
    sources = ([parameters] if parameters is not None else []) + list(cells)
    made = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "execution_count": None,
            "outputs": [],
            "metadata": {"tags": ["parameters"]} if i == 0 and parameters is not None else {},
            "source": source,
        }
        for i, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(book))


@pytest.fixture
def project(tmp_path):
    """The library and the pipeline's files without notebooks: a place for tiny stand-ins."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "sltlib", root / "sltlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "*.local"))
    shutil.copytree(ROOT / "data" / "fashion", root / "data" / "fashion")
    shutil.copytree(ROOT / "results" / "tuning", root / "results" / "tuning")
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    return Project(root)


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A git repository of every tracked file as it is now, with nothing trained: a fresh clone."""
    root = tmp_path_factory.mktemp("clone") / "repository"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    copy = Project(root)
    copy.commit()
    return copy
