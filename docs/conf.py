"""How Sphinx draws the site; `docs/make_site.py` gathers its pages and calls it. Nothing here reads the network."""

from html import escape

from latex2mathml.converter import convert

project = "Spiking lottery tickets"
author = "The Spiking Lottery Tickets developers"
project_copyright = f"{author}; code MIT, text and figures CC BY 4.0"
extensions = ["myst_nb"]
nb_execution_mode = "off"  # what is shown is what the pipeline ran
nb_ipywidgets_js = {}  # no scripts from elsewhere
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
myst_update_mathjax = False
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": False}
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]  # notebooks begin some sections one level down


def _inline(self, node):
    self.body.append(_mathml(node.astext(), "inline"))
    _skip()


def _display(self, node):
    self.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    _skip()


def _skip():
    from docutils import nodes

    raise nodes.SkipNode


def _mathml(latex, display):
    """The formula as MathML, which every current browser draws by itself, with its LaTeX as the words that are read out."""
    made = convert(latex, display=display)
    return made.replace("<math ", f'<math alttext="{escape(latex, quote=True)}" ', 1)


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
