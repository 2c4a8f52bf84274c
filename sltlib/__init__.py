"""Spiking lottery tickets: sparse, binary networks found inside random spiking ones.

The public names load on first use, so that `import sltlib` costs nothing and a
notebook whose trainings are stored never imports torch.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "Experiment": "experiment",
    "run": "engine.runner",
    "Ticket": "ticket",
    "load_data": "data",
    "build_model": "models",
    "LIF": "neurons",
}
__all__ = [*_PUBLIC, "energy", "figures", "notebook", "stats"]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"sltlib.{_PUBLIC[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"sltlib.{name}")
    raise AttributeError(f"sltlib has no {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
