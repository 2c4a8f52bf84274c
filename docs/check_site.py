"""Check built pages without a network: links and anchors lead somewhere, pictures have words, nothing is loaded from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}  # what a browser fetches by itself
NAMES = ("canonical", "next", "prev", "search", "index", "author", "license")  # links of these kinds are fetched by nobody


class Page(HTMLParser):
    """What a page points to, what can be pointed to in it, and its pictures without words."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.loads, self.silent, self.headings = [], set(), [], [], 0
        self.language = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.update(given[name] for name in ("id", "name") if given.get(name))
        if tag == "html":
            self.language = given.get("lang")
        if tag == "h1":
            self.headings += 1
        if tag == "img" and not (given.get("alt") or "").strip() and given.get("role") != "presentation":
            self.silent.append(given.get("src"))
        for name in ("href", "src"):
            if given.get(name) is None:
                continue
            self.links.append(given[name])
            if (tag, name) in LOADS and given.get("rel") not in NAMES:
                self.loads.append(given[name])


def problems(site):
    """A line for everything that is wrong in a folder of pages; ValueError where it holds none."""
    site = Path(site).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise ValueError(f"{site} holds no page")
    out = []
    for path, page in pages.items():
        name = path.relative_to(site)
        if name.name != "search.html":  # whose heading a script writes
            out += [f"{name}: {what}" for what, is_so in (("no language", not page.language), (f"{page.headings} first headings", page.headings != 1)) if is_so]
        out += [f"{name}: a picture without words, {_short(src)}" for src in page.silent]
        out += [f"{name}: loads {link} from elsewhere" for link in page.loads if urlsplit(link).netloc]
        for link in dict.fromkeys(page.links):
            if wrong := _wrong(link, path, site, pages):
                out.append(f"{name}: {_short(link)} {wrong}")
    return out


def _wrong(link, path, site, pages):
    """Why a link within the site leads nowhere, "" where it leads somewhere or outside."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return "leads nowhere"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return "has no such anchor"
    return ""


def _short(text):
    return text if len(text or "") < 200 else f"{text[:80]}..."
