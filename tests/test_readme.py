"""The README: its tables are the committed results, its examples run, its commands exist."""

import os
import re
import subprocess
import sys

import pytest

from sltlib.base import paths
from sltlib.notebook import readme

TEXT = (paths.ROOT / "README.md").read_text()


def test_tables_are_those_of_the_committed_results():
    assert readme.main(["--check"]) == 0, "run `python -m sltlib readme`"


def test_a_number_that_was_typed_in_is_found(monkeypatch, tmp_path):
    row = re.search(r"\| SNN \| ([\d.]+) \|", TEXT)
    stale = TEXT.replace(row[0], "| SNN | 99.99 |")
    assert readme.filled(stale) == TEXT and stale != TEXT
    with pytest.raises(ValueError, match="claims"):
        readme.filled(TEXT.replace("<!-- claims -->", ""))


def test_every_claim_and_row_is_shown():
    metrics = readme._metrics("02_table1_cnn")
    assert all(claim["claim"] in TEXT and claim["verdict"] in TEXT for claim in metrics["claims"])
    assert {f["verdict"] for f in metrics["claims"]} <= {"holds", "does not hold", "not resolved"}


def test_python_examples_run_one_after_another(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M)
    assert len(blocks) >= 5
    (tmp_path / "examples.py").write_text("\n".join(blocks))
    env = os.environ | {"SLT_STORE": str(tmp_path / "store"), "SLT_COMPILE": "0", "SLT_QUIET": "1"}
    command = [sys.executable, str(tmp_path / "examples.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, cwd=paths.ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "of" in done.stdout and "weights" in done.stdout


@pytest.mark.parametrize("name", ["largest_at_birth", "signed", "gratings"])
def test_additions_take_at_most_twenty_lines(name):
    block = next(b for b in re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M) if f"def {name}(" in b)
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 20


def test_commands_and_files_exist():
    makefile = (paths.ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)`?", TEXT)) - {"it", "repro"}:
        assert re.search(rf"^{target}:", makefile, re.M), target
    from sltlib.__main__ import COMMANDS

    for command in re.findall(r"python -m sltlib ([a-z]+)", TEXT):
        assert command in COMMANDS
    for path in re.findall(r"\]\(([\w/]+\.(?:ipynb|png))\)", TEXT):
        assert (paths.ROOT / path).is_file(), path
