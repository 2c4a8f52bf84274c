"""What built pages need that theme and markup leave out: names for a screen reader, keys that scroll, links to the glossary."""

import os
import re
from html import unescape
from pathlib import Path

MENDS = (
    (r'role="heading">', 'role="heading" aria-level="2">'),
    (r'<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    (r'<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    (r"<pre>", '<pre tabindex="0">'),  # what scrolls can be reached by keys
    (r'<div class="(table-wrapper[^"]*|math)">', r'<div class="\1" tabindex="0">'),
    (r'<table border="1" class="dataframe">', '<table class="dataframe" tabindex="0">'),
    (r'(?s)(<article[^>]*>)(?=\s*<noscript>.{0,400}?activate JavaScript)', r"\1<h1>Search</h1>"),  # the script writes one with results only
    (r"<th([^>]*)>\s*(?:<p>\s*</p>)?\s*</th>", r"<td\1></td>"),  # an empty heading heads nothing
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),  # its own words say more
)
# Terms that are words of every day as well: the glossary has them, no page links them.
PLAIN = {"run", "result", "search", "control", "key", "store", "claim", "profile", "reset", "mask", "ticket", "the file", "decay", "interval"}
CLOSED = {"a", "code", "pre", "math", "script", "style", "button", "summary", "dt", "h1", "h2", "h3", "h4", "th", "figcaption"}


def mended(text):
    """A page with the theme's omissions made good."""
    for wrong, right in MENDS:
        text = re.sub(wrong, right, text)
    return text


def anchored(text):
    """(the glossary's page with an anchor at every term, {term in small letters: its anchor})."""
    terms = {}

    def anchor(found):
        words = unescape(re.sub(r"<[^>]+>", "", found[1]))
        name = "term-" + re.sub(r"\W+", "-", words.lower()).strip("-")
        if "·" not in words:  # the verdicts stand together
            for term in re.split(r"[,;()]", words):
                if len(term.strip()) > 1 and term.strip().lower() not in PLAIN:
                    terms[term.strip().lower()] = name
        return f'<dt id="{name}">{found[1]}</dt>'

    return re.sub(r"<dt>(.*?)</dt>", anchor, text, flags=re.S), terms


def linked(text, terms, to):
    """A page whose paragraphs link each term to the glossary, the file `to`, where it is first used."""
    head, start, body = text.partition("<article")
    body, end, foot = body.partition("</article>")
    left, closed, paragraphs, out = dict(terms), 0, 0, []
    for piece in re.split(r"(<[^>]+>)", body):
        if tag := re.match(r"<(/?)(\w+)", piece):
            step = -1 if tag[1] else 1
            closed += step * (tag[2] in CLOSED)
            paragraphs += step * (tag[2] == "p")
        elif left and paragraphs and not closed:
            names = "|".join(re.escape(term) for term in sorted(left, key=len, reverse=True))
            piece = re.sub(rf"(?<![\w&-])({names})(s?)(?![\w-])", lambda found: _link(found, left, to), piece, flags=re.I)
        out.append(piece)
    return "".join([head, start, *out, end, foot])


def _link(found, left, to):
    name = left.get(found[1].lower())
    if name is None:  # linked a moment ago
        return found[0]
    for term in [term for term, anchor in left.items() if anchor == name]:
        del left[term]
    return f'<a class="term" href="{to}#{name}">{found[0]}</a>'


def site(folder):
    """Mend every page of a folder, in place."""
    folder = Path(folder)
    glossary = folder / "docs" / "glossary.html"
    text, terms = anchored(glossary.read_text(encoding="utf-8"))
    glossary.write_text(text, encoding="utf-8")
    for path in sorted(folder.rglob("*.html")):
        text = mended(path.read_text(encoding="utf-8"))
        if path != glossary:
            text = linked(text, terms, Path(os.path.relpath(glossary, path.parent)).as_posix())
        path.write_text(text, encoding="utf-8")
