"""The pipeline: DVC, the figure command and papermill, on stand-in notebooks and on the real ones."""

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import pty
import re
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest
import yaml

from sltlib import __main__ as cli
from sltlib.base import machine, paths
from sltlib.notebook import outputs, pipeline, profiles as known

ROOT = Path(__file__).resolve().parent.parent
CHECK = "from sltlib import notebook\np = notebook.check({name!r}, globals())"
DRAW = """
import json, sys
(p.output / "figures").mkdir()
for name in ("figure.png", "figures/a.png", "table.csv", "tickets/a"):
    (p.output / name).write_text(repr(p.seeds))
(p.output / "metrics.json").write_text(json.dumps({"n": len(p.seeds), "torch": "torch" in sys.modules}))
"""


@pytest.fixture
def two(project):
    """A project with two tiny notebooks that train nothing."""
    for name in ("00_first", "01_second"):
        defaults = 'seeds = [0]\nlr = 0.1\ndataset = "fashion"'
        project.notebook(name, CHECK.format(name=name), DRAW, parameters=defaults)
    profiles(project, mini={"00_first": {"seeds": [0, 1]}, "01_second": {}})
    project.commit()
    return project


def profiles(project, **blocks):
    (project.root / "params.yaml").write_text(yaml.safe_dump(blocks))


def stages(text):
    """The stages that dvc says it ran."""
    return re.findall(r"Running stage '(?:[\w/.]+:)?([\w@]+)'", text)


# --- the three files ---------------------------------------------------------------------------


def test_the_profiles_pipelines_are_alike():
    mini = (ROOT / "dvc.yaml").read_text().split("stages:\n")[1]
    for profile in ("smoke", "study", "paper"):
        head, text = (ROOT / profile / "dvc.yaml").read_text().split("stages:\n")
        assert yaml.safe_load(head) == {"vars": [f"../params.yaml:{profile}"]}
        assert text.count("wdir: ..\n") == 2
        lines = [line for line in text.splitlines() if line.strip() != "wdir: .." and "results/tuning" not in line]
        assert [line.replace(profile, "mini") for line in lines] == [line for line in mini.splitlines() if "results/tuning" not in line]


@pytest.mark.parametrize("profile", ["mini", "smoke", "paper"])
def test_a_profile_depends_on_the_tunings_that_it_reads_and_on_no_other(profile):
    """A tuning of the study would make every figure of mini stale."""
    stage = yaml.safe_load((ROOT / ("" if profile == "mini" else profile) / "dvc.yaml").read_text())["stages"]["figure"]["do"]
    read = {known.settings(profile, notebook).get("recipes") for notebook in known.blocks(profile)} - {None}
    for notebook in known.blocks(profile):  # files that a notebook shows
        text = "".join("".join(cell["source"]) for cell in json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"])
        read |= set(re.findall(r'notebook\.tuning\("([^"]+)"\)', text))
    listed = [name for name in stage["deps"] if name.startswith("results/tuning")]
    assert listed == sorted(f"results/tuning/{name}" for name in read) and "results/tuning/starves.csv" in listed


def test_the_study_depends_on_every_tuning():
    """It reads mini's and its own, which are searched one by one: a folder that is not there yet would stop DVC."""
    stage = yaml.safe_load((ROOT / "study/dvc.yaml").read_text())["stages"]["figure"]["do"]
    assert [name for name in stage["deps"] if name.startswith("results/tuning")] == ["results/tuning"]


def test_what_a_notebook_must_leave_is_what_the_pipeline_tracks():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["figure"]["do"]
    listed = [next(iter(o)) if isinstance(o, dict) else o for k in ("outs", "metrics", "plots") for o in stage[k]]
    assert sorted(Path(name).name for name in listed) == sorted(outputs.OUTPUTS)
    assert all(Path(name).parent == Path("results/mini/${key}") for name in listed)


# --- dvc ---------------------------------------------------------------------------------------


def test_repro_runs_what_changed_and_nothing_else(two):
    first = two.run("dvc", "repro").stdout
    assert sorted(stages(first)) == ["data", "figure@00_first", "figure@01_second"]
    output = two.root / "results/mini/00_first"
    assert json.loads((output / "metrics.json").read_text()) == {"n": 2, "torch": False}
    assert json.loads((output / "timing.json").read_text())["profile"] == "mini"
    assert (output / "executed.ipynb").is_file()

    two.run(sys.executable, "-m", "compileall", "-q", "sltlib")  # as any import does
    begin = time.monotonic()
    assert stages(two.run("dvc", "repro").stdout) == []
    assert time.monotonic() - begin < 20, "a repro with nothing to do must be quick"

    profiles(two, mini={"00_first": {"seeds": [0, 1]}, "01_second": {"lr": 0.2}})
    again = two.run("dvc", "repro").stdout
    assert [s for s in stages(again) if s != "data"] == ["figure@01_second"]

    two.notebook("01_second", CHECK.format(name="01_second"), DRAW, parameters='seeds = [0]\nlr = 0.1\ndataset = "fashion-dvs"')
    prepared = two.root / "data/prepared/mini/manifest.json"
    assert "fashion-dvs" not in prepared.read_text()
    assert {"data", "figure@01_second"} <= set(stages(two.run("dvc", "repro").stdout))
    assert "fashion-dvs" in prepared.read_text(), "a default that a profile leaves alone names a data set too"


def test_a_fresh_clone_runs_everything_and_changes_no_tracked_file(two):
    two.run("dvc", "repro")
    two.commit()
    tracked = two.git("ls-files").stdout.split()
    assert "results/mini/00_first/figure.png" in tracked and "dvc.lock" in tracked
    assert not [n for n in tracked if "tickets" in n or "executed" in n or "timing" in n or "prepared" in n]
    two.run("git", "clone", "-q", ".", "../clone")
    two.root = two.root.parent / "clone"
    two.env["PYTHONPATH"] = str(two.root)
    ran = stages(two.run("dvc", "repro").stdout)
    assert sorted(ran) == ["data", "figure@00_first", "figure@01_second"]
    assert two.git("status", "--porcelain").stdout == ""


def test_a_key_that_a_notebook_does_not_declare_stops_before_anything_runs(two):
    profiles(two, mini={"00_first": {"sedes": [0], "lr": -1}, "01_second": {}})
    done = two.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "mini.00_first sets ['sedes'], which 00_first.ipynb does not declare" in done.stdout
    assert "did you mean seeds" in done.stdout and "lr=-1" in done.stdout
    assert not (two.root / "results/mini/00_first/executed.ipynb").exists()


# --- the figure command ------------------------------------------------------------------------


def figure(project, *words, **env):
    return project.run(sys.executable, "-m", "sltlib", "figure", *words, check=False, **env)


def test_a_notebook_is_found_by_number_name_or_path(monkeypatch):
    monkeypatch.setattr(known, "names", lambda: ["00_neuron", "01_ticket"])
    for name in ("01_ticket", "01", "ticket", "notebooks/01_ticket.ipynb"):
        assert pipeline.resolve(name) == "01_ticket"
    with pytest.raises(ValueError, match=r"no notebook '02' \(there are: 00_neuron, 01_ticket\)"):
        pipeline.resolve("02")


def test_the_draft_profile_runs_a_notebooks_own_defaults(two):
    assert figure(two, "01", "--profile", "draft").returncode == 0
    # Its defaults are what mini has for it, so they are mini's results; a draft was asked for.
    assert not (two.root / "results/mini/01_second").exists()
    assert (two.root / "results/draft/01_second/table.csv").read_text() == "[0]"


def test_a_copy_runs_beside_its_original_and_never_for_it(two):
    """As JupyterLab names it; its check call still names the original."""
    two.notebook("01_second-Copy1", CHECK.format(name="01_second"), DRAW, parameters='seeds = [7]\nmore = 1')
    assert figure(two, "01").returncode == 0, "a copy must not make the original's number ambiguous"
    assert (two.root / "results/mini/01_second/table.csv").read_text() == "[0]"
    done = figure(two, "01_second-Copy1", "--profile", "draft")
    assert done.returncode == 0, done.stdout
    assert (two.root / "results/draft/01_second-Copy1/table.csv").read_text() == "[7]"
    assert figure(two, "01_second-Copy1").returncode == 1


@pytest.mark.parametrize(
    "words, message",
    [(["07"], "no notebook '07'"), (["00", "--profile", "mimi"], "no profile 'mimi' (did you mean mini?)")],
)
def test_wrong_words_get_one_clear_line(two, words, message):
    done = figure(two, *words)
    assert done.returncode == 1 and message in done.stdout and "Traceback" not in done.stdout


def test_a_failing_cell_is_named_with_its_last_lines(two):
    two.notebook("00_first", CHECK.format(name="00_first"), "1 / 0  # the culprit", parameters="seeds = [0]")
    done = figure(two, "00")
    assert done.returncode == 1
    assert "00_first failed in cell [4]: ZeroDivisionError: division by zero" in done.stdout
    assert "the culprit" in done.stdout and "results/mini/00_first/executed.ipynb" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_dead_kernel_is_said(two):
    cell = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    two.notebook("00_first", cell, parameters="seeds = [0]")
    done = figure(two, "00")
    assert done.returncode == 138 and "kernel died" in done.stdout


def test_a_notebook_that_leaves_an_output_out_fails(two):
    cells = CHECK.format(name="00_first"), DRAW.replace('"table.csv", ', "")
    two.notebook("00_first", *cells, parameters="seeds = [0]")
    done = figure(two, "00")
    assert done.returncode == 1 and "left no table.csv" in done.stdout


def test_smoke_is_eager_and_the_kernel_gets_the_allocators_variables(two):
    cell = f"import os\nassert all(os.environ[k] == v for k, v in {machine.ENVIRONMENT!r}.items())\n"
    cell += "assert os.environ['SLT_COMPILE'] == '0' and os.environ['SLT_PROFILE'] == 'smoke'\n"
    cell += "assert not [name for name in os.listdir() if 'ipc' in name], 'sockets where another run makes its own'"
    two.notebook("00_first", CHECK.format(name="00_first"), cell, DRAW, parameters="seeds = [0]")
    profiles(two, mini={"00_first": {}}, smoke={"00_first": {}})
    for name in machine.ENVIRONMENT:
        two.env.pop(name, None)
    assert figure(two, "00", "--profile", "smoke").returncode == 0
    assert (two.root / "results/smoke/00_first/table.csv").exists()


# --- papermill ---------------------------------------------------------------------------------


def test_plain_papermill_takes_a_list_and_refuses_a_wrong_name(two):
    command = ["papermill", "notebooks/00_first.ipynb", "out.ipynb", "--no-progress-bar"]
    two.run(*command, "-p", "seeds", "[3, 4]", "-p", "lr", "1")
    output = two.root / "results/draft/00_first"
    assert (output / "table.csv").read_text() == "[3, 4]"
    done = two.run(*command, "-p", "sedes", "[0]", "-p", "seeds", "[7, 7]", check=False)
    assert done.returncode == 1
    assert "'sedes'" in done.stdout and "did you mean seeds" in done.stdout and "twice" in done.stdout
    assert (output / "table.csv").read_text() == "[3, 4]", "a refused run must leave an earlier one alone"


# --- nothing is left behind --------------------------------------------------------------------


class Marked:
    """Everything that a command started, known by a mark in its environment."""

    def __init__(self):
        self.name, self.value = "SLT_TEST_MARK", uuid.uuid4().hex

    def processes(self):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(self.name) == self.value:
                    found.append(process)
        return found

    def gone(self, processes, seconds=15):
        _, alive = psutil.wait_procs(processes, timeout=seconds)
        return [p.cmdline() for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def busy(two):
    """A project whose first notebook says on a pipe that it runs, then waits for ever."""
    os.mkfifo(two.root / "pipe")
    cell = "open('pipe', 'w').close()\nimport threading\nthreading.Event().wait()"
    two.notebook("00_first", CHECK.format(name="00_first"), cell, parameters="seeds = [0]\ndataset = 'fashion'")
    two.mark = Marked()
    two.env[two.mark.name] = two.mark.value
    yield two
    for process in two.mark.processes():
        process.kill()


def wait_until_busy(project):
    with open(project.root / "pipe") as pipe:  # opens when the notebook opens its end
        pipe.read()
    found = project.mark.processes()
    words = [" ".join(p.cmdline()) for p in found]
    assert any("ipykernel" in w for w in words) and any("sltlib figure" in w for w in words), words
    return found


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_killing_dvc_leaves_nothing_running(busy, shell):
    with busy.start("dvc", "repro", SHELL=shell) as dvc:
        running = wait_until_busy(busy)
        dvc.kill()
        dvc.wait()
        assert busy.mark.gone(running) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT])
def test_ending_the_figure_command_leaves_nothing_running(busy, number):
    command = busy.start(sys.executable, "-m", "sltlib", "figure", "00")
    running = wait_until_busy(busy)
    command.send_signal(number)
    out = command.communicate()[0].decode()
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130}.get(number, 128 + number)
    assert command.returncode == expected, out
    assert busy.mark.gone(running) == []
    assert "Traceback" not in out, out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_signal_cut_off_is_not_told_at_length(number, monkeypatch, caplog):
    """A kernel that dies before its cell is given up leaves a task whose exception nobody asks for."""
    logger = logging.getLogger("asyncio")
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(pipeline.threading, "Timer", lambda *given: threading.Thread(target=lambda: None))

    async def dies():
        raise RuntimeError("Kernel died")

    async def run():
        asyncio.get_running_loop().create_task(dies())
        await asyncio.sleep(0)

    with pytest.raises(SystemExit) as ended:
        pipeline._stop(number, None)
    assert ended.value.code == 128 + number
    asyncio.run(run())
    gc.collect()
    assert caplog.text == ""


def test_a_killed_run_is_taken_up_by_the_next_repro(busy):
    with busy.start("dvc", "repro") as dvc:
        running = wait_until_busy(busy)
        dvc.kill()
        dvc.wait()
        busy.mark.gone(running)
    busy.notebook("00_first", CHECK.format(name="00_first"), DRAW, parameters="seeds = [0]")
    assert "figure@01_second" in stages(busy.run("dvc", "repro").stdout)


def test_ctrl_c_in_a_terminal_ends_everything_and_says_so(busy):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(busy.root)
        os.execvpe("dvc", ["dvc", "repro"], busy.env)
    running = wait_until_busy(busy)
    os.write(terminal, b"\x03")
    text = b""
    with contextlib.suppress(OSError):  # the terminal closes when its last process ends
        while chunk := os.read(terminal, 4096):
            text += chunk
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) != 0
    assert busy.mark.gone(running) == []
    assert b"interrupted" in text and b"Traceback" not in text, text.decode()
    assert text.count(b"\n") < 30, text.decode()


# --- the command line --------------------------------------------------------------------------


def test_an_unknown_command_is_refused_with_a_close_one(capsys):
    assert cli.main(["figre"]) == 2
    assert "did you mean figure" in capsys.readouterr().err
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


def test_every_command_has_its_function():
    for name, (module, function, _) in cli.COMMANDS.items():
        assert callable(getattr(importlib.import_module(f"sltlib.{module}"), function)), name


def test_the_command_line_starts_itself_again_with_the_allocators_variables(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execv", lambda path, words: calls.append((words, dict(os.environ))))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-P", "-W", "error", "-m", "sltlib", "data", "list"])
    monkeypatch.delenv("SLT_NO_REEXEC", raising=False)
    for name in machine.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that the test puts it back
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cli._environment(alone=True)
    (words, environment) = calls.pop()
    assert words == [sys.executable, "-P", "-W", "error", "-m", "sltlib", "data", "list"]
    assert {**environment, **machine.ENVIRONMENT, "OMP_NUM_THREADS": "3"} == environment
    cli._environment(alone=True)
    assert calls == [], "once is enough"


def test_importing_the_command_line_loads_nothing_heavy(project):
    code = "import sys, sltlib.__main__, sltlib.notebook.pipeline\n"
    code += "print([m for m in ('torch', 'snntorch', 'pandas', 'matplotlib', 'papermill') if m in sys.modules])"
    assert project.run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_the_kernel_is_registered_with_this_python_and_the_variables(tmp_path):
    assert pipeline.kernel_main(["--prefix", str(tmp_path)]) == 0
    spec = json.loads((tmp_path / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    assert spec["env"] == machine.ENVIRONMENT


# --- the real notebooks ------------------------------------------------------------------------

SMOKE, LOCK = "smoke/dvc.yaml", "smoke/dvc.lock"


def trained(project):
    return sorted(p.name for p in (project.root / ".slt" / "results").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_smoke_runs_end_to_end_in_a_fresh_clone(clone):
    """All of it; then nothing to do; then one parameter; then everything lost but the store."""
    notebooks = known.names()
    assert notebooks, "there are no notebooks"
    begin = time.monotonic()
    ran = stages(clone.run("dvc", "repro", SMOKE, timeout=1800).stdout)
    seconds = time.monotonic() - begin
    assert ran[0] == "data" and sorted(ran[1:]) == [f"figure@{n}" for n in notebooks]  # DVC promises no more order
    print(f"\nsmoke: {seconds:.0f} s")
    for name in notebooks:
        output = clone.root / "results/smoke" / name
        assert json.loads((output / "metrics.json").read_text()) is not None
        for file in ("table.csv", "figure.png"):
            assert (output / file).stat().st_size > 0, (name, file)
        assert list((output / "figures").glob("*.pdf")), name
    clone.git("add", LOCK)
    clone.git("commit", "-q", "-m", "lock")
    assert clone.git("status", "--porcelain").stdout == "", "a run left files that git does not ignore"
    before = trained(clone)
    assert before

    assert stages(clone.run("dvc", "repro", SMOKE).stdout) == []

    blocks = json.loads(json.dumps(yaml.safe_load((clone.root / "params.yaml").read_text())))  # no shared blocks
    changed = next(n for n in reversed(notebooks) if "seeds" in known.declared(n))
    old = blocks["smoke"][changed].get("seeds", known.declared(changed)["seeds"])
    blocks["smoke"][changed]["seeds"] = [*old, max(old) + 1]
    (clone.root / "params.yaml").write_text(yaml.safe_dump(blocks, sort_keys=False))
    ran = stages(clone.run("dvc", "repro", SMOKE, timeout=1500).stdout)
    assert [s for s in ran if s != "data"] == [f"figure@{changed}"]
    after = trained(clone)
    assert set(before) < set(after)

    clone.run("git", "checkout", "-q", "params.yaml")
    (clone.root / LOCK).unlink()
    clone.run("rm", "-rf", "results/smoke", ".dvc/cache", ".dvc/tmp")
    clone.run("dvc", "repro", SMOKE)
    assert trained(clone) == after, "everything was stored, yet something was trained"
    # The same results, byte by byte; only the order of the lock's stages is DVC's to choose.
    kept = yaml.safe_load(clone.git("show", f"HEAD:{LOCK}").stdout)
    assert yaml.safe_load((clone.root / LOCK).read_text()) == kept
    clone.git("checkout", "-q", LOCK)
    modified = [(clone.root / ".slt/results" / key / "manifest.json").stat().st_mtime for key in before]
    assert max(modified) < time.time()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_notebook_runs_by_nbval_with_its_own_defaults(clone):
    """The one place where nbval is used."""
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-cell-timeout=400", "-p", "no:cacheprovider", "--timeout=0", "notebooks"]
    done = clone.run(*command, timeout=1700, SLT_RESULTS=str(clone.root.parent / "by-hand"))
    assert re.search(r"\d+ passed", done.stdout) and "failed" not in done.stdout
    assert clone.git("status", "--porcelain").stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_plain_papermill_runs_a_real_notebook(clone):
    command = ["papermill", "notebooks/02_table1_cnn.ipynb", "../out.ipynb", "--no-progress-bar"]
    clone.env["SLT_PROFILE"] = "draft"  # wherever its defaults would land
    clone.run(*command, "-p", "seeds", "[0,1]")
    table = (clone.root / "results/draft/02_table1_cnn/table.csv").read_text()
    assert len(table.splitlines()) > 2
    done = clone.run(*command, "-p", "sparsity", "1", "-p", "sedes", "[0]", check=False)
    assert done.returncode == 1 and "sparsity=1.0" in done.stdout and "did you mean seeds" in done.stdout
    assert (clone.root / "results/draft/02_table1_cnn/table.csv").read_text() == table
    del clone.env["SLT_PROFILE"]


def test_notebooks_are_committed_without_outputs_and_with_one_parameters_cell():
    for name in known.names():
        book = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text())
        for cell in book["cells"]:
            kept = {"keep_output"} | {t for t in cell["metadata"].get("tags", []) if t.startswith("nbval-check")}
            if cell["cell_type"] == "code" and not kept & set(cell["metadata"].get("tags", [])):
                assert not cell["outputs"], f"{name} has stored outputs"
        assert "widgets" not in book["metadata"], f"{name} has widget state"
        known.declared(name)
