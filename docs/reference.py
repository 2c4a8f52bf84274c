"""The page of the public face, from its docstrings: what `from sltlib import ...` offers."""

import inspect
import re
import textwrap
import types

import sltlib

WIDTH = 90  # letters of a signature in one line


def page():
    """The reference as Markdown: every public name with its signature and docstring."""
    lines = ["# Reference", "", "All that `from sltlib import ...` offers. Other names are private to `sltlib` and may change.", ""]
    modules = []
    for name in sltlib.__all__:
        value = getattr(sltlib, name)
        if isinstance(value, types.ModuleType):
            modules.append((name, value))
        else:
            lines += entry(name, value, "##")
    for name, module in modules:
        lines += [f"## {name}", "", *prose(module.__doc__)]
        for part, value in public(module).items():
            lines += entry(f"{name}.{part}", value, "###")
    return "\n".join(lines)


def public(module):
    """A module's functions and classes for its users: what `__all__` lists, and what it defines without an underscore."""
    listed = [name for name in getattr(module, "__all__", ()) if not isinstance(getattr(module, name), types.ModuleType)]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")]
    found = {name: getattr(module, name) for name in dict.fromkeys([*listed, *own])}
    return {name: value for name, value in found.items() if inspect.isfunction(value) or inspect.isclass(value)}


def entry(name, value, mark):
    """The lines of one name; of a class its public methods as well. What is no function or class says what it holds."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        held = ", ".join(f"`{key}`" for key in value) if isinstance(value, dict | list | tuple) else f"`{value!r}`"
        return [f"{mark} {name}", "", held, ""]
    lines = [f"{mark} {name}", "", "```python", signature(name, value), "```", "", *prose(value.__doc__)]
    if inspect.isclass(value):
        for method, function in vars(value).items():
            function = getattr(function, "__func__", function)  # of a class method
            if isinstance(function, property) and function.fget.__doc__ and not method.startswith("_"):
                lines += [f"`{method}`", *_told(function.fget.__doc__)]
            elif inspect.isfunction(function) and function.__doc__ and not method.startswith("_"):
                lines += [f"`{' '.join(signature(method, function).split())}`", *_told(function.__doc__)]
    return lines


def _told(text):
    """A definition under the line before."""
    told = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return [f": {_escaped(told)}", ""]


def signature(name, value):
    """The call, with what `inspect` knows of its arguments; addresses of objects are left out."""
    try:
        found = inspect.signature(value)
        parts = [str(part) for part in found.parameters.values()]
        text = str(found)
    except (TypeError, ValueError):
        text, parts = "(...)", ()
    if len(name) + len(text) > WIDTH and parts:  # an argument a line, of a method in one line still
        text = "(\n    " + ",\n    ".join(parts) + ",\n)"
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations that are kept as text
    return re.sub(r"<[\w. ]+?( at 0x[0-9a-f]+)?>", "...", f"{name}{text}")


def prose(text):
    """A docstring as Markdown: indented parts are code, lines `name : meaning` a list, the rest paragraphs."""
    lines = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        if not block.strip():
            continue
        if all(line.startswith("    ") for line in block.splitlines()):
            lines += ["```text", textwrap.dedent(block), "```", ""]
            continue
        for line in block.splitlines():
            argument = re.match(r"([\w*, ]+?) : (.*)", line)
            if line.startswith("    "):
                lines.append(f"  {_escaped(line.strip())}")
            elif argument:
                lines.append(f"- `{argument[1]}`: {_escaped(argument[2])}")
            else:
                lines.append(_escaped(line))
        lines.append("")
    return lines


def _escaped(line):
    """Markdown's signs as themselves, but for code between backticks."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*_<>\[\]$\\{}#|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
