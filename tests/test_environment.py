"""The three descriptions of the environment agree, with each other and with what is installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sltlib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["test"]]
OPTIONAL = [Requirement(r) for extra in EXTRAS if extra != "test" for r in EXTRAS[extra]]


def installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def needed():
    """Names of everything that the declared requirements bring, as installed here, extras where they are."""
    declared = REQUIRED + [r for r in OPTIONAL if installed(r.name)]
    found, queue = set(), [(r.name, tuple(r.extras)) for r in declared]
    while queue:
        name, extras = queue.pop()
        key = (canonicalize_name(name), extras)
        if key in found:
            continue
        found.add(key)
        for text in metadata.requires(name) or []:
            r = Requirement(text)
            if not r.marker or any(r.marker.evaluate({"extra": e}) for e in ("", *extras)):
                queue.append((r.name, tuple(r.extras)))
    return {name for name, _ in found}


def test_every_line_of_the_constraints_is_one_exact_pin():
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES), "a pin without local version or marker"
    assert len(PINS) == len(LINES)


def test_every_requirement_is_pinned_within_its_range():
    for r in REQUIRED + OPTIONAL:
        assert r.specifier.contains(PINS[canonicalize_name(r.name)]), f"{r} is pinned to {PINS[r.name]}"


def test_what_is_installed_is_what_is_pinned():
    wrong = {
        name: (metadata.version(name), PINS.get(name))
        for name in needed()
        if name in PINS and Version(metadata.version(name)).public != PINS[name]
    }
    assert not wrong, f"installed and pinned differ (make setup mends it): {wrong}"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring other packages")
def test_everything_that_is_needed_is_pinned_and_nothing_else():
    aside = ("nvidia-", "cuda-", "triton", "setuptools")  # of GPU builds, and of every environment
    here = {n for n in needed() if not n.startswith(aside)}
    assert here - PINS.keys() == set(), "needed and not pinned"
    if absent := [r.name for r in OPTIONAL if not installed(r.name)]:
        pytest.skip(f"what the extras bring is unknown without {', '.join(absent)}: make extras")
    assert PINS.keys() - here == set(), "pinned and not needed"


def test_the_pins_are_for_the_oldest_python_that_is_promised():
    assert PROJECT["requires-python"] == ">=3.11"
    for name in needed():
        wants = metadata.metadata(name).get("Requires-Python")
        assert not wants or Requirement(f"x{wants}").specifier.contains("3.11.2"), f"{name}: {wants}"


def test_conda_installs_by_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}
    python = next(d for d in conda if d.startswith("python="))
    assert Requirement(f"x{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))
    assert [d for d in conda if d != python] == ["pip"], "versions stand in constraints.txt only"


def test_no_import_is_undeclared():
    """Whatever sltlib imports from outside is in pyproject.toml under that name."""
    names = {"yaml": "pyyaml", "nbclient": "papermill", "traitlets": "ipykernel", "cycler": "matplotlib"}
    names |= {"PIL": "pillow"}
    direct = [Requirement(r) for r in PROJECT["dependencies"]] + OPTIONAL
    declared = {canonicalize_name(r.name) for r in direct}
    for path in sorted((ROOT / "sltlib").rglob("*.py")):
        for name in set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M)):
            if name in sys.stdlib_module_names or name == "sltlib":
                continue
            wanted = names.get(name, name)
            assert canonicalize_name(wanted) in declared, f"{path.name} imports {name}"


def test_the_version_is_told_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == sltlib.__version__ == metadata.version("sltlib")
    assert f"## {sltlib.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["authors"] == PROJECT["authors"] == [{"name": "The Spiking Lottery Tickets developers"}]


def test_importing_the_library_imports_no_torch():
    modules = ("experiment", "data", "data.events", "engine.store", "engine.run", "engine.workers", "engine.commands", "engine.doctor", "notebook", "stats", "figures")
    modules += ("table1", "notebook.pipeline")
    code = f"import sys, sltlib, {', '.join('sltlib.' + m for m in modules)}\n"
    code += "assert not {'torch', 'snntorch', 'tonic', 'aedat'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and script.read_text().rstrip().endswith("make test")


def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\n[ \"$1\" = -V ] && echo Python 3.9.1\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    done = subprocess.run(
        ["make", "setup", f"PYTHON={old}"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode and "Python >= 3.11 is needed" in done.stdout and "3.9.1" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_test_installs_the_extras_and_make_repro_does_not():
    def commands(target):
        run = ["make", "--dry-run", "--always-make", target]
        return subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "'.[site]'" in commands("site")
    extras = ",".join(sorted(EXTRAS, key=lambda extra: (extra != "test", extra)))
    for target in ("repro", "test-fast"):
        assert "'.[test]'" in commands(target) and extras not in commands(target)
    assert f"'.[{extras}]'" in commands("test"), f"the Makefile's target `extras` installs '.[{extras}]'"


def test_make_installs_again_when_a_pin_changes(tmp_path):
    """A stamp names what was installed; a stand-in for python counts the installs."""
    python = tmp_path / "python3"
    python.write_text(
        '#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip;;'
        ' *install*) echo x >> installs;; esac\n'
    )
    python.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("a")

    def installs():
        subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
        return len((tmp_path / "installs").read_text().split())

    assert installs() == 1
    assert installs() == 1
    (tmp_path / "constraints.txt").write_text("b")
    assert installs() == 2
