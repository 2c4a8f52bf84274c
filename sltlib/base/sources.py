"""What names a function that somebody added: a hash of its code and of every value that it reaches."""

import hashlib
import importlib.util
import inspect
import json
import site
import sys
import sysconfig
import types

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def code_hash(function, what: str) -> str:
    """12 hex digits of a function's source and of all that it uses: its defaults and closure, the constants,
    functions and classes of its module, and whole modules of the same author.

    Installed packages, the standard library and sltlib itself count by name only: versions and NUMERICS say
    what they are. what : names the function in errors. Raises ValueError naming what cannot be hashed.
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
        return (_file(value), {}) if _own(value.__name__) else (f"module {value.__name__}", {})
    if inspect.isbuiltin(value) or isinstance(value, types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}", {}
    if inspect.isclass(value) or inspect.isfunction(value):
        if not _own(value.__module__):
            return f"{value.__module__}.{value.__qualname__}", {}
        return _code(value, what)
    if isinstance(value, staticmethod | classmethod | property):
        inner = value.fget if isinstance(value, property) else value.__func__
        return _described(inner, name, what)
    if isinstance(value, list | tuple | set | frozenset | dict):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        items = {repr(k): v for k, v in items.items()} if isinstance(value, dict) else dict(enumerate(items))
        return f"{type(value).__name__} of {list(items)}", {str(k): v for k, v in items.items()}
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}", {}
    if not _own(type(value).__module__) and callable(value) and getattr(value, "__module__", None) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}", {}
    raise ValueError(
        f"{what}: its key needs the value of {name.removeprefix(what + '.')}, and a {type(value).__name__} cannot be hashed: "
        "use functions with def, numbers, strings, arrays, and lists or dicts of them"
    )


def _code(thing, what):
    """A function's or class's source, and what it uses."""
    try:
        text = inspect.getsource(thing)
    except (TypeError, OSError) as error:
        raise ValueError(f"{what}: its key needs the source of {thing!r}: define it with def in a file or a notebook") from error
    more = {}
    if inspect.isclass(thing):
        more |= {f"base {base.__qualname__}": base for base in thing.__bases__ if base is not object}
        skip = ("__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__")
        parts = {n: v for n, v in vars(thing).items() if n not in skip and not isinstance(v, types.MemberDescriptorType)}
        for name, part in parts.items():
            inner = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
            more |= _used(inner) if inspect.isfunction(inner) else {name: inner}
    else:
        more |= _used(thing)
    return text, {name: value for name, value in more.items() if value is not thing}


def _used(function):
    """{name: value} of a function's defaults, closure, and the globals that its code names."""
    function = inspect.unwrap(function)
    out = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    out |= {f"default {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not set yet
            continue
        if name != "__class__":
            out[name] = value
    todo = [function.__code__]
    while todo:
        code = todo.pop()
        out |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
        todo += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return out


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
    places = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    origin = (spec and (spec.origin or next(iter(spec.submodule_search_locations or []), ""))) or ""
    return not any(origin.startswith(place) for place in places)


def _file(module):
    try:
        return inspect.getsource(module)
    except (TypeError, OSError) as error:
        raise ValueError(f"the key needs the source of the module {module.__name__}") from error
