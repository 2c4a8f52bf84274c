"""Build the site: `python docs/make_site.py [--profile mini] [--output _site]`, or `make site`.

The pages keep the places that their files have in the repository, so that one link works on a code host and
on the site. Notebooks are shown as the pipeline executed them, and nothing is executed here.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import check_site  # noqa: E402
import mend  # noqa: E402
import reference  # noqa: E402

from sltlib import figures  # noqa: E402
from sltlib.base import paths  # noqa: E402
from sltlib.notebook import profiles  # noqa: E402
from sltlib.notebook.readme import NOTEBOOKS  # noqa: E402

PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md", "bench/NOTES.md", "results/tuning/README.md")
FILES = ("claims.yaml", "params.yaml", "CITATION.cff", "LICENSE", "LICENSE-CC-BY")  # linked from pages
TREE = """
```{{toctree}}
:caption: {caption}
:hidden:

{pages}
```
"""


def executed(profile, results):
    """{notebook: its executed form as nbformat JSON}; ValueError naming each that is missing or not of its source."""
    found, wrong = {}, []
    for name in profiles.blocks(profile):
        path = results / profile / name / "executed.ipynb"
        if not path.is_file():
            wrong.append(f"no {path}")
            continue
        found[name] = json.loads(path.read_text(encoding="utf-8"))
        if _code(found[name]) != _code(json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))):
            wrong.append(f"{path} was made by another version of its notebook")
    if wrong:
        how = {"mini": "make repro", "smoke": "make smoke"}.get(profile, f"make {profile}")
        raise ValueError("; ".join(wrong) + f": run `{how}` first")
    return found


def _code(notebook):
    """Sources of the cells that somebody wrote: papermill adds the cell of injected parameters."""
    cells = [c for c in notebook["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
    return ["".join(c["source"]).rstrip() for c in cells if c["cell_type"] == "code"]


def shown(notebook, folder):
    """The notebook for the site: cells that draw are folded, and every picture has its words."""
    heading = ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = next((line.lstrip("# ") for line in source.splitlines() if line.startswith("#")), heading)
        elif any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "hide-input"]
            words = _words(source, folder) or f"Figure of the section: {heading}"
            cell["metadata"]["mystnb"] = {"image": {"alt": words}}
    return notebook


def drawn(notebook, source):
    """The notebook, with words in place of a picture that no committed run has drawn yet."""

    def kept(found):
        return found[0] if Path(os.path.normpath(source / "notebooks" / found[1])).is_file() else "*(No committed run has drawn it yet.)*"

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"!\[[^]]*\]\(([^):]+)\)", kept, "".join(cell["source"]))
    return notebook


def launched(notebook, name, environment=os.environ):
    """The notebook with a link that opens it in Binder, which makes its machine from environment.yml; where GitHub builds the site."""
    if repository := environment.get("GITHUB_REPOSITORY"):
        url = f"https://mybinder.org/v2/gh/{repository}/HEAD?labpath=notebooks/{name}.ipynb"
        first = notebook["cells"][0]
        title, _, rest = "".join(first["source"]).partition("\n")
        first["source"] = f"{title}\n\n[Run it in the browser (Binder)]({url})\n{rest}"
    return notebook


def _words(source, folder):
    """The alt text of the figure that a cell saves, from the file that it wrote."""
    for path in [*sorted((folder / "figures").glob("*.png")), folder / "figure.png"]:
        call = "figures.headline(" if path.stem == "figure" else f'"{path.stem}")'
        if call in source and path.is_file() and (words := figures.alt_of(path)):
            return words
    return ""


def path_page(profile):
    """The tutorial path, a line a notebook, with the time that each takes."""
    lines = ["# Learn", "", "In this order; each ends with things to try and a link to the next. Times are classes on two", "cores from an empty store, for profile `mini`.", ""]
    lines += ["| notebook | you learn | time |", "|---|---|---|"]
    for name in profiles.blocks(profile):
        what, time = NOTEBOOKS[name]
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {what} | {time} |")
    return "\n".join([*lines, "", "Words: [glossary](docs/glossary.md). To run them: `make lab`.", ""])


def gallery(profile, results):
    """Every figure with the command, the parameters and the table behind it."""
    lines = ["# Gallery", "", f"All figures of profile `{profile}`. The column `key` of a table names the trainings behind a figure.", ""]
    for name, parameters in profiles.blocks(profile).items():
        folder = f"results/{profile}/{name}"
        lines += [f"## {name}", "", f"Made by `python -m sltlib figure {name} --profile {profile}`; numbers: [table.csv]({folder}/table.csv).", ""]
        if parameters:
            lines += [f"Parameters: {', '.join(f'`{key}={value}`' for key, value in parameters.items())}.", ""]
        for path in sorted((results / profile / name / "figures").glob("*.png")):
            words = figures.alt_of(path) or f"{path.stem.replace('_', ' ')}, a figure of notebook {name}; its numbers are in the table"
            lines += [f"![{_plain(words)}]({folder}/figures/{path.name})", ""]
    return "\n".join(lines)


def _plain(words):
    """Words within the brackets of a link."""
    return words.replace("[", "(").replace("]", ")").replace("\n", " ")


def stage(source, profile, results):
    """Gather every page and what it links to in the folder source."""
    notebooks = executed(profile, results)
    for name in (*PAGES, *FILES):
        _copy(paths.ROOT / name, source / name)
    for path in sorted((paths.ROOT / "docs").glob("*.md")):
        _copy(path, source / "docs" / path.name)
    for name in ("bench", "claims"):
        shutil.copytree(paths.ROOT / "results" / name, source / "results" / name)
    shutil.copytree(paths.ROOT / "results" / "mini", source / "results" / "mini", ignore=shutil.ignore_patterns("executed.ipynb", "tickets"))
    for name, notebook in notebooks.items():
        folder = results / profile / name
        shutil.copytree(folder, source / "results" / profile / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("executed.ipynb", "tickets"))
        _write(source / "notebooks" / f"{name}.ipynb", json.dumps(launched(drawn(shown(notebook, folder), source), name)))
    for path in paths.NOTEBOOKS.glob("*.ipynb"):  # those outside the profile as they are committed: links stay whole
        if not (source / "notebooks" / path.name).exists():
            _write(source / "notebooks" / path.name, json.dumps(drawn(json.loads(path.read_text(encoding="utf-8")), source)))
    _write(source / "learn.md", path_page(profile))
    _write(source / "gallery.md", gallery(profile, results))
    _write(source / "reference.md", reference.page())
    trees = {
        "Learn": ["learn", *sorted(f"notebooks/{path.stem}" for path in (source / "notebooks").glob("*.ipynb")), "docs/glossary"],
        "Use": ["docs/use", "data/README", "reference", "docs/cluster", "docs/dependability"],
        "Check": ["gallery", "docs/secondary", "results/tuning/README", "docs/speed", "bench/NOTES"],
        "About": ["docs/paper", "CONTRIBUTING", "CHANGELOG"],
    }
    summary = (source / "README.md").read_text(encoding="utf-8")
    (source / "README.md").unlink()
    note = "" if profile == "mini" else f"\n```{{note}}\nA preview: its notebooks and gallery are of profile `{profile}`.\n```\n"
    head, _, rest = summary.partition("\n")
    summary = f"{head}\n{note}{rest}"
    _write(source / "index.md", summary + "".join(TREE.format(caption=c, pages="\n".join(p)) for c, p in trees.items()))
    for path in source.rglob("*.md"):  # the README is the first page of the site
        if path.parent.name != "data":
            _write(path, path.read_text(encoding="utf-8").replace("../README.md", "../index.md").replace("(README.md", "(index.md"))


def _copy(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(argv=None):
    """Build the site and check it; status 1 with the cause where it cannot be built, is not whole or loads from elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="whose executed notebooks are shown (mini)")
    parser.add_argument("--output", type=Path, default=paths.ROOT / "_site", help="folder of the site (_site)")
    given = parser.parse_args(argv)
    work = given.output.with_name(f"{given.output.name}-source")
    source, built = work / "pages", work / "built" / "html"  # beside html myst-nb leaves a folder of pictures
    shutil.rmtree(work, ignore_errors=True)
    try:
        stage(source, given.profile, paths.results())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(work / "doctrees")]
    if status := subprocess.run([*build, "-c", str(paths.ROOT / "docs"), str(source), str(built)]).returncode:
        return status
    shutil.rmtree(given.output, ignore_errors=True)
    built.rename(given.output)
    shutil.rmtree(work)
    (given.output / ".nojekyll").touch()
    mend.site(given.output)
    problems = check_site.problems(given.output)
    print("\n".join(problems) or f"{given.output}: every link and picture is there", file=sys.stderr if problems else sys.stdout)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
