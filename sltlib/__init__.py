"""Spiking lottery tickets: sparse, binary networks found inside random spiking ones.

The public names load on first use, so that `import sltlib` costs nothing and a
notebook whose trainings are stored never imports torch.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {  # name: the module that defines it
    "Experiment": "experiment",
    "run": "engine.run",
    "Store": "engine.store",
    "Ticket": "ticket",
    "Packed": "packed",
    "load_data": "data",
    "data_of": "train",
    "build_model": "models",
    "LIF": "neurons",
    "row": "table1",
    "ROWS": "table1",
    "TICKETS": "table1",
}
_MODULES = {  # name: the module itself
    **{name: name for name in ("data", "energy", "figures", "layers", "neurons", "notebook", "patches", "pruning", "registry")},
    **{name: name for name in ("claims", "evidence", "forest", "intervals", "standard", "stats", "table1", "table2", "train")},
    "events": "data.events",
}
__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"sltlib.{_PUBLIC[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"sltlib.{_MODULES[name]}")
    raise AttributeError(f"sltlib has no {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
