"""The site: built from executed notebooks or refused in words, whole without a network, its promises held by tests that exist."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

from sltlib import figures
from sltlib.base import paths

DOCS = paths.ROOT / "docs"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def loaded(monkeypatch, name):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(monkeypatch):
    return loaded(monkeypatch, "check_site")


@pytest.fixture
def site(monkeypatch):
    for name in ("check_site", "mend", "reference"):
        loaded(monkeypatch, name)
    return loaded(monkeypatch, "make_site")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """What the smoke profile leaves, without running it: sources, one figure and one picture a notebook."""
    import matplotlib.pyplot as plt

    from sltlib.notebook import profiles

    root, fig = tmp_path / "results", figures.new()[0]
    for name in profiles.blocks("smoke"):
        folder = root / "smoke" / name
        (folder / "figures").mkdir(parents=True)
        figures.save(fig, folder, "drawn", alt=f"the words of {name}")
        (folder / "table.csv").write_text("key\nabc\n")
        notebook = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text())
        notebook["cells"].insert(1, code("# Parameters\nseeds = [0]", tags=["injected-parameters"]))
        (folder / "executed.ipynb").write_text(json.dumps(notebook))
    plt.close(fig)
    monkeypatch.setenv("SLT_RESULTS", str(root))
    return root


def code(source, tags=(), outputs=()):
    return {"cell_type": "code", "id": "made", "metadata": {"tags": list(tags)}, "source": source, "outputs": list(outputs), "execution_count": 1}


PICTURE = {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": "<Figure>"}, "metadata": {}}


def test_a_missing_notebook_is_told_with_its_remedy(site, results, tmp_path, capsys):
    (results / "smoke/00_spiking_neuron/executed.ipynb").unlink()
    assert site.main(["--profile", "smoke", "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "00_spiking_neuron/executed.ipynb" in said and "`make smoke`" in said and "01_first_ticket" not in said


def test_a_notebook_that_changed_since_is_told(site, results):
    path = results / "smoke/01_first_ticket/executed.ipynb"
    site.executed("smoke", results)
    path.write_text(path.read_text().replace("import", "import  ", 1))
    with pytest.raises(ValueError, match="01_first_ticket.*another version"):
        site.executed("smoke", results)


def test_cells_that_draw_are_folded_and_pictures_have_the_words_of_their_files(site, results):
    folder = results / "smoke/00_spiking_neuron"
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "## A part"},
        code('figures.save(fig, p.output, "drawn")', outputs=[PICTURE]),
        code("fig", outputs=[PICTURE]),
        code("1 + 1"),
    ]
    _, saved, other, plain = site.shown({"cells": cells}, folder)["cells"]
    assert saved["metadata"]["mystnb"]["image"]["alt"] == "the words of 00_spiking_neuron"
    assert other["metadata"]["mystnb"]["image"]["alt"] == "Figure of the section: A part"
    assert "hide-input" in saved["metadata"]["tags"] and plain["metadata"]["tags"] == []


def test_a_picture_that_no_run_has_drawn_is_said_and_others_stay(site, tmp_path):
    (tmp_path / "there.png").write_bytes(b"")
    cell = {"cell_type": "markdown", "source": ["![a](../there.png)\n", "![b](../gone.png)\n"]}
    source = site.drawn({"cells": [cell]}, tmp_path)["cells"][0]["source"]
    assert "![a](../there.png)" in source and "gone.png" not in source and "No committed run" in source


def test_notebooks_are_launched_from_the_repository_that_builds_the_site(site):
    def made(environment):
        return site.launched({"cells": [{"cell_type": "markdown", "source": ["# T\n", "\n", "words"]}]}, "00_a", environment)["cells"][0]["source"]

    assert "".join(made({})) == "# T\n\nwords"
    assert made({"GITHUB_REPOSITORY": "who/what"}).startswith("# T\n\n[Run it in the browser (Binder)](https://mybinder.org/v2/gh/who/what/HEAD?labpath=notebooks/00_a.ipynb)\n")
    assert (paths.ROOT / "environment.yml").is_file()  # what Binder makes its machine of


def test_a_term_is_linked_where_it_is_first_used_and_nowhere_else(site, tmp_path):
    import mend

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/glossary.html").write_text("<article><dl><dt><strong>Spiking neuron (LIF)</strong></dt><dd><p>a firing rate</p></dd><dt>Firing rate</dt><dt>SLT; LT</dt><dt>P(A &gt; B)</dt></dl></article>")
    page = tmp_path / "page.html"
    page.write_text('<nav><p>LIF</p></nav><article><h2>LIF</h2><p><code>LIF</code> LIFE &lt; B <em>spiking neurons</em>, LIF</p><p>Firing rates, <a href="x">LIF</a></p></article>')
    mend.site(tmp_path)
    assert '<dt id="term-spiking-neuron-lif">' in (tmp_path / "docs/glossary.html").read_text() and "<a " not in (tmp_path / "docs/glossary.html").read_text()
    assert page.read_text() == (
        '<nav><p>LIF</p></nav><article><h2>LIF</h2><p><code>LIF</code> LIFE &lt; B <em><a class="term" href="docs/glossary.html#term-spiking-neuron-lif">spiking neurons</a></em>, LIF</p>'
        '<p><a class="term" href="docs/glossary.html#term-firing-rate">Firing rates</a>, <a href="x">LIF</a></p></article>'
    )


def test_what_scrolls_is_reached_by_keys_and_an_empty_heading_is_none(site):
    import mend

    text = mend.mended('<pre>x</pre><div class="table-wrapper docutils">y</div><th></th><th class="head"><p></p></th><th>z</th>')
    assert text == '<pre tabindex="0">x</pre><div class="table-wrapper docutils" tabindex="0">y</div><td></td><td class="head"></td><th>z</th>'


@pytest.mark.slow
def test_axe_finds_a_picture_without_words_and_a_page_that_is_too_wide(monkeypatch, tmp_path):
    access = loaded(monkeypatch, "check_access")
    axe = Path(os.environ.get("AXE", paths.ROOT / "node_modules/axe-core/axe.min.js"))
    if not access.browser() or not axe.is_file():
        pytest.skip("needs Chromium and axe-core: npm install axe-core, or AXE=axe.min.js")
    right = '<!doctype html><html lang="en"><head><title>t</title><meta name="viewport" content="width=device-width"></head><body><main><h1>x</h1>{}</main></body></html>'
    page = tmp_path / "page.html"
    page.write_text(right.format("<p>words</p>"))
    assert access.problems(tmp_path, axe) == []
    page.write_text(right.format(f'<img src="data:image/png;base64,{PNG}"><div style="width:2000px">x</div>'))
    assert {line.split(": ")[1].split(",")[0] for line in access.problems(tmp_path, axe)} == {"image-alt", "width"}


@pytest.mark.parametrize(
    "body, wrong",
    [
        ('<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ('<a href="../outside.html">x</a>', "leads nowhere"),
        ('<a href="other.html#gone">x</a>', "has no such anchor"),
        ('<a href="#gone">x</a>', "has no such anchor"),
        ('<img src="p.png">', "a picture without words"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js from elsewhere"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "loads //cdn.example/x.css from elsewhere"),
        ("<h1>two</h1>", "2 first headings"),
        ('<a href="other.html#there">x</a><a href="#top">x</a><a href="https://arxiv.org">x</a><img src="p.png" alt="words">', ""),
    ],
)
def test_the_checker_finds(check, tmp_path, body, wrong):
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "outside.html").write_text("")
    (folder / "p.png").write_bytes(b"")
    (folder / "other.html").write_text('<html lang="en"><h1 id="there">x</h1></html>')
    (folder / "page.html").write_text(f'<html lang="en"><h1 id="top">x</h1>{body}</html>')
    found = check.problems(folder)
    assert len(found) == bool(wrong) and all(wrong in line and line.startswith("page.html: ") for line in found)


def test_a_folder_without_pages_is_no_site(check, tmp_path):
    with pytest.raises(ValueError, match="holds no page"):
        check.problems(tmp_path)


def test_the_reference_has_every_public_name(site):
    import reference

    import sltlib

    page = reference.page()
    assert all(re.search(rf"^## {name}$", page, re.M) for name in sltlib.__all__)
    assert "0x" not in re.sub(r"`[^`]*`", "", page), "an address of this process"
    assert reference.prose("One\n\nx : a *b*\n\n    code") == ["One", "", "- `x`: a \\*b\\*", "", "```text", "code", "```", ""]


def test_every_promise_names_a_test_that_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (DOCS / "dependability.md").read_text())
    assert len(named) >= 30
    for file, test in named:
        assert re.search(rf"^def {test}\(", (paths.ROOT / "tests" / file).read_text(), re.M), f"{file}::{test}"


@pytest.mark.slow
def test_the_site_is_whole(site, results, tmp_path, capsys):
    """Every page is built without a warning, and every link, anchor and picture is there."""
    for needed in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(needed)
    out = tmp_path / "out"
    assert site.main(["--profile", "smoke", "--output", str(out)]) == 0, capsys.readouterr().err
    pages = {path.relative_to(out).as_posix() for path in out.rglob("*.html")}
    assert {"index.html", "learn.html", "gallery.html", "reference.html", "docs/glossary.html", "docs/dependability.html", "notebooks/00_spiking_neuron.html"} <= pages
    assert "the words of 00_spiking_neuron" in (out / "gallery.html").read_text()
    assert "<math " in (out / "notebooks/00_spiking_neuron.html").read_text() and "merror" not in (out / "notebooks/00_spiking_neuron.html").read_text()
    assert not (tmp_path / "out-source").exists()
