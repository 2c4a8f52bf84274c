"""What names a function that somebody added: a hash of its code and of every value that it reaches."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import pathlib
import site
import sys
import sysconfig
import types

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_BARE = frozenset({()})  # a name is used by itself, and not only for an attribute


def code_hash(function, what: str) -> str:
    """12 hex digits of a function's source and of all that it uses: its defaults and closure, what wraps it, the constants,
    functions and classes of its module, and what it names of modules of the same author, imported where it may be.

    Of such a module that is more than a name before a dot (`getattr(mine, name)`, `vars(mine)`) everything counts. Installed
    packages, the standard library and sltlib itself count by name only: versions and NUMERICS say what they are. What
    is only found while it runs (`import_module(name)`, `eval`) is not seen. what : names the function in errors. Raises
    ValueError naming what cannot be hashed.
    """
    # Everything is described once, however many ways lead to it, and says by number what it uses.
    places, todo, found = {id(function): 0}, [(what, function)], []
    for name, value in todo:  # grows
        text, more = _described(value, name, what)
        links = {}
        for inner, used in more.items():
            if isinstance(used, _PLAIN):  # by value: whether two equal ones are one object is the interpreter's business
                links[inner] = repr(used)
                continue
            if id(used) not in places:
                places[id(used)] = len(todo)
                todo.append((f"{name}.{inner}", used))
            links[inner] = places[id(used)]
        found.append([text, links])
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def _described(value, name, what):
    """(text, {name: what else it uses}) of a value that added code reaches."""
    if isinstance(value, _PLAIN):
        return repr(value), {}
    if isinstance(value, types.ModuleType):
        return _whole(value) if _mine(value) else (f"module {value.__name__}", {})
    if inspect.isbuiltin(value) or isinstance(value, types.MethodType):
        bound = _bound(value)
        return (f"{value.__qualname__} of", bound) if bound else (f"{value.__module__}.{value.__qualname__}", {})
    if inspect.isclass(value) or inspect.isfunction(value):
        return _code(value, what)
    if isinstance(value, staticmethod | classmethod | property):
        return type(value).__name__, {str(i): part for i, part in enumerate(_parts(value)) if part}
    if isinstance(value, list | tuple | set | frozenset | dict):
        return _items(value, name, what)
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        if value.dtype.hasobject:  # its bytes are addresses
            return f"{value.dtype} {value.shape}", {"items": value.tolist()}
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}", {}
    if not _own(type(value).__module__) and callable(value) and getattr(value, "__module__", None) and hasattr(value, "__qualname__"):
        if not _own(value.__module__):
            return f"{value.__module__}.{value.__qualname__}", {}
        if hasattr(value, "__wrapped__"):  # functools.cache
            return f"{_word(type(value))} of", {"__wrapped__": value.__wrapped__}
    raise _refused(name, what, f"a {type(value).__name__}")


def _refused(name, what, kind):
    whole = "; or say in the code what it needs of the module, `module.name`" if ".*." in name else ""
    return ValueError(
        f"{what}: its key needs the value of {name.removeprefix(what + '.')}, and {kind} cannot be hashed: "
        f"use functions with def, numbers, strings, arrays, and lists or dicts of them{whole}"
    )


def _items(value, name, what):
    """A container by its items; those of a set in an order that is the same in every process."""
    if isinstance(value, set | frozenset):
        items, words = sorted(value, key=_word), {_word(item) for item in value}
        if len(words) < len(items) or len(items) > 1 and any(" at 0x" in word for word in words):
            raise _refused(name, what, "a set of things without an order")
        return f"{type(value).__name__} of {[*range(len(items))]}", {str(i): item for i, item in enumerate(items)}
    if isinstance(value, dict) and not all(isinstance(key, _PLAIN) for key in value):
        return f"{type(value).__name__} of {len(value)}", {f"{i} {n}": part for i, pair in enumerate(value.items()) for n, part in enumerate(pair)}
    items = {repr(k): v for k, v in value.items()} if isinstance(value, dict) else dict(enumerate(value))
    return f"{type(value).__name__} of {list(items)}", {str(k): v for k, v in items.items()}


def _word(value):
    """A function or class by where it stands, other things by their repr."""
    if isinstance(value, tuple | frozenset):
        words = [_word(item) for item in value]
        return f"{type(value).__name__}{words if isinstance(value, tuple) else sorted(words)}"
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)


def _bound(method):
    """What a method is bound to, and its function; {} where that is a module's own business, as of math.sqrt and random.random."""
    owner = method.__self__
    homes = [sys.modules.get(module) for module in (method.__module__, type(owner).__module__) if module and not _own(module)]
    if owner is None or isinstance(owner, types.ModuleType) or any(getattr(home, method.__name__, None) is method for home in homes):
        return {}
    return {"self": owner} | ({"function": method.__func__} if isinstance(method, types.MethodType) else {})


def _parts(thing):
    """The functions that a property, or a static or class method, consists of; of anything else the thing itself."""
    if isinstance(thing, property):
        return thing.fget, thing.fset, thing.fdel
    return (thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing,)


# --- code


def _code(thing, what):
    """A function's or class's source, and what it uses; of installed ones the name, and what functions they were given."""
    if not _own(_home(thing)):
        return f"{_home(thing)}.{thing.__qualname__ if inspect.isclass(thing) else thing.__code__.co_qualname}", _given(thing)
    text = None
    try:
        text = inspect.getsource(thing if inspect.isclass(thing) else thing.__code__)  # of a wrapper: its own, not that of what it wraps
    except (TypeError, OSError) as error:
        if not inspect.isclass(thing):  # a notebook's class has no text: its methods have
            raise ValueError(f"{what}: its key needs the source of {thing!r}: define it with def in a file or a notebook") from error
    more = _members(thing, text) if inspect.isclass(thing) else _used(thing)
    return text or f"class {thing.__qualname__}", {name: value for name, value in more.items() if value is not thing}


def _home(thing):
    """The module in which a function or class was written: `wraps` gives a wrapper the name of another one."""
    return thing.__module__ if inspect.isclass(thing) else thing.__globals__.get("__name__")


def _given(thing):
    """What an installed function was given that is not installed: what it wraps, and the functions and numbers in its closure."""
    if inspect.isclass(thing):
        return {}
    out = {}
    for name, value in (_closure(thing) | {n: v for n, v in vars(thing).items() if n == "__wrapped__"}).items():
        values = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        out |= {f"{name} {_word(key)}": each for key, each in values if _gives(each)}
        out |= {name: value} if _gives(value) else {}
    return out


def _gives(value):
    """Whether installed code that was given a value may do something else for it: what is installed is told by its name."""
    return isinstance(value, _PLAIN) or inspect.isfunction(value) or inspect.isclass(value) or _own(type(getattr(value, "__self__", value)).__module__)


def _members(cls, text):
    """What a class has, and what its methods use, whose text stands in the class's, if it has one."""
    more = {f"base {base.__qualname__}": base for base in cls.__bases__ if base is not object}
    if type(cls) is not type:
        more["metaclass"] = type(cls)
    skip = ("__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__")
    for name, part in vars(cls).items():
        if name in skip or isinstance(part, types.MemberDescriptorType):
            continue
        for number, each in enumerate(_parts(part)):
            said = f"{name} {number}" if number else name
            if text and inspect.isfunction(each) and each.__code__.co_qualname == f"{cls.__qualname__}.{name}":
                more |= {f"{said}.{used}": value for used, value in _used(each).items()}
            elif not number or each:
                more[said] = each
    return more


def _used(function):
    """{name: value} of a function's defaults, closure, what it wraps, what it imports, and the globals that its code names."""
    out = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    out |= {f"default {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
    if "__wrapped__" in vars(function):
        out["__wrapped__"] = function.__wrapped__
    names, todo = {}, [function.__code__]
    while todo:
        code = todo.pop()
        names |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
        todo += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    tree = _tree(function)
    chains = _chains(tree)
    for name, value in (names | _closure(function)).items():
        out |= _reached(name, value, _BARE if tree is None else chains.get(name, ()))
    return out | _imported(function, tree, chains) | _decorating(function, tree, chains)


def _decorating(function, tree, chains):
    """{name: value} of what a function's decorators name: an installed one may keep it where it is not found."""
    out = {}
    node = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None) if tree else None
    names = [part.id for each in node.decorator_list for part in ast.walk(each) if isinstance(part, ast.Name)] if node else []
    for name in dict.fromkeys(name for name in names if name in function.__globals__):
        for said, value in _reached(name, function.__globals__[name], chains[name]).items():
            if _gives(value) or isinstance(value, list | tuple | dict | set | frozenset) or hasattr(value, "dtype"):
                out[f"@{said}"] = value
            elif "<" not in repr(value):  # neither an address nor a folder
                out[f"@{said}"] = repr(value)
    return out


def _closure(function):
    out = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            out[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    out.pop("__class__", None)
    return out


def _tree(function):
    """A function's source, parsed; None where it is not whole statements, as of a lambda, or is not there."""
    try:
        text = inspect.getsource(function.__code__)
        return ast.parse(f"if 1:\n{text}" if text[:1].isspace() else text)
    except (TypeError, OSError, SyntaxError):
        return None


def _chains(tree):
    """{name: {the attributes that are read after it}}, () where it stands by itself: `a.b.c` and `f(a)` are {"a": {("b", "c"), ()}}."""
    found, within = {}, set()
    for node in ast.walk(tree) if tree else ():  # outer ones first
        chain, part = (), node
        while isinstance(part, ast.Attribute) and node not in within:
            chain, part = (part.attr, *chain), part.value
            within.add(part)
        if isinstance(part, ast.Name) and (chain or part not in within and isinstance(part.ctx, ast.Load)):
            found.setdefault(part.id, set()).add(chain)
    return found


# --- modules


def _reached(name, value, chains):
    """{name: value} of a value that code names, with what it reads of it where that is a module of one's own, or a function."""
    if _mine(value) and not chains:  # only an attribute of something is called so
        return {}
    out = {name: _text(value) if _mine(value) else value}
    for chain in sorted(chains):
        said, part = name, value
        for attribute in chain:
            held = vars(part) if inspect.isfunction(part) and _own(_home(part)) else {}
            if _mine(part) and hasattr(part, attribute):  # a package's may be made when they are asked for
                held = {attribute: getattr(part, attribute)}
            if attribute not in held:
                break
            said, part = f"{said}.{attribute}", held[attribute]
            out[said] = _text(part) if _mine(part) else part
        else:
            out |= {f"{said}.*": part} if _mine(part) else {}
    return out


def _imported(function, tree, chains):
    """{name: value} of what a function imports of one's own modules when it runs."""
    out, own = {}, function.__globals__
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = _module(alias.name)
                out |= {} if module is None else {f"import {alias.name}": _text(module) if module else "not here"}
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                out |= _reached(top, _module(top), chains.get(alias.asname or top, ())) if module else {}
        elif isinstance(node, ast.ImportFrom):
            package = own.get("__package__") or own.get("__name__", "").rpartition(".")[0]
            place = importlib.util.resolve_name("." * node.level + (node.module or ""), package or "__main__") if node.level else node.module
            module = _module(place)
            out |= {} if module is None else {f"import {place}": _text(module) if module else "not here"}
            for alias in node.names if module else ():
                said = f"{place}.{alias.name}"
                value = getattr(module, alias.name) if hasattr(module, alias.name) else _module(said) or "not here"
                out |= {f"import {said}": _text(value)} if _mine(value) else {}
                out |= _reached(said, value, chains.get(alias.asname or alias.name, ()))
    return out


def _module(name):
    """A module of one's own, imported; False where it is not here, None where it is none of one's own."""
    if not _own(name):
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return False


def _mine(value):
    """Whether a value is a module of one's own."""
    return isinstance(value, types.ModuleType) and _own(value.__name__)


def _whole(module):
    """A module as its text, and everything that has a name in it."""
    return _text(module), {name: value for name, value in sorted(vars(module).items()) if not (name.startswith("__") and name.endswith("__"))}


def _text(module):
    """A word for the text of a module; ValueError where it has none. What has no file, as a notebook, is its parts."""
    if getattr(module, "__file__", None) is None:
        return f"module {module.__name__}"
    try:
        text = inspect.getsource(module) if pathlib.Path(module.__file__).stat().st_size else ""
    except (TypeError, OSError) as error:
        raise ValueError(f"the key needs the source of the module {module.__name__}") from error
    return f"module {module.__name__}: {hashlib.sha256(text.encode()).hexdigest()}"


def _own(module):
    """Whether a module is somebody's own: not sltlib, not installed, not of the standard library."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__" or top in sys.builtin_module_names or top == "sltlib":
        return False
    if top == "__main__":
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    origin = (spec and (spec.origin or next(iter(spec.submodule_search_locations or []), ""))) or ""
    return not any(pathlib.PurePath(origin).is_relative_to(place) for place in [*site.getsitepackages(), site.getusersitepackages(), *libraries])
