"""Where a project lies and what runs beside it: several runs at once, a read-only checkout, a download, blanks in paths."""

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import yaml

CHECK = "from sltlib import notebook\np = notebook.check({name!r}, globals())"
LEAVE = """
import json
(p.output / "figures").mkdir(parents=True)
for name in ("figure.png", "figures/a.png", "table.csv"):
    (p.output / name).write_text("")
(p.output / "metrics.json").write_text(json.dumps({}))
"""


def notebooks(project, count, *cells):
    """Tiny notebooks and a profile with them; returns their names."""
    names = [f"{number:02}_tiny" for number in range(count)]
    for name in names:
        project.notebook(name, CHECK.format(name=name), *cells, LEAVE, parameters="seeds = [0]")
    (project.root / "params.yaml").write_text(yaml.safe_dump({"mini": {name: {} for name in names}}))
    return names


def test_several_figures_at_once_leave_each_other_alone(project):
    names = notebooks(project, 3)
    before = set(os.listdir(project.root))
    runs = [project.start(sys.executable, "-m", "sltlib", "figure", name) for name in names]
    for run in runs:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said.decode()
    assert set(os.listdir(project.root)) - before <= {"results", ".slt"}, "everything of a run lies in its own folder"
    assert all((project.root / "results/mini" / name / "metrics.json").exists() for name in names)


def test_a_read_only_checkout_runs_with_results_and_store_elsewhere(project, tmp_path):
    train = "from sltlib import Experiment, run\n"
    train += "e = Experiment('fashion', model='linear', image_size=8, train_images=100, epochs=1, batch_size=50)\n"
    train += "table = run([e], 'inline')"
    (name,) = notebooks(project, 1, train)
    own, command = tmp_path / "own", [sys.executable, "-m", "sltlib", "figure", name]
    own.mkdir()
    if os.getuid() == 0:  # whom no mode refuses anything, but for those who give that right away
        if not shutil.which("setpriv"):
            pytest.skip("root writes everywhere, and there is no setpriv to forgo it")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    places = {"SLT_RESULTS": str(own / "results"), "SLT_STORE": str(own / "store"), "HOME": str(own), "SLT_COMPILE": "0"}
    project.env.pop("TORCHINDUCTOR_CACHE_DIR", None)
    everything = [project.root, *project.root.rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert project.run(*command[:-5], "touch", "new", check=False).returncode != 0, "it is read-only indeed"
        project.run(*command, **places)
    finally:
        for path in everything:  # so that it can be removed
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert (own / "results/mini" / name / "metrics.json").exists()
    assert len(list((own / "store/results").iterdir())) == 1


def test_a_download_without_git_runs_by_make(project):
    shutil.copy(Path(__file__).parent.parent / "Makefile", project.root)
    for name in ("pyproject.toml", "constraints.txt"):
        (project.root / name).write_text("")
    notebooks(project, 1)
    assert not (project.root / ".git").exists()
    refused = project.run("dvc", "repro", check=False).stdout
    assert "git" in refused  # else this test shows nothing
    command = project.run("make", "-n", "repro").stdout.splitlines()[-1]
    assert "repro" in command
    project.run("bash", "-c", command)
    assert (project.root / "results/mini/00_tiny/metrics.json").exists()
    assert "didn't change" in project.run("dvc", "repro").stdout  # from now on without make


@pytest.mark.slow
def test_a_blank_in_the_stores_path_keeps_the_compiler(project, tmp_path):
    store = tmp_path / "my store"
    project.env.pop("TORCHINDUCTOR_CACHE_DIR", None)
    words = "dataset=fashion model=conv2 width=0.1 image_size=8 train_images=100 epochs=1 batch_size=50"
    done = project.run(sys.executable, "-m", "sltlib", "run", *words.split(), SLT_STORE=str(store), SLT_COMPILE="1")
    assert "compiler" not in done.stdout
    (result,) = (store / "results").iterdir()
    assert '"compiled": true' in (result / "provenance.json").read_text()
