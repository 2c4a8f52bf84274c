"""Names that are moving: gone when everything imports them from their new place."""

from sltlib.notebook.limits import datasets  # noqa: F401
from sltlib.notebook.outputs import OUTPUTS  # noqa: F401
from sltlib.notebook.outputs import folder as output_folder  # noqa: F401
from sltlib.notebook.parameters import check, match, validate  # noqa: F401
from sltlib.notebook.profiles import DRAFT, block, declared, names, profiles  # noqa: F401
from sltlib.notebook.recipes import folder as tuning_folder  # noqa: F401
from sltlib.notebook.recipes import read, recipes  # noqa: F401


def tuned_for(name):
    return read(name)["settings"]


def subject(name):
    profile, _, number = name.partition("-")
    return profile, next((n for n in names() if number and n.startswith(number)), None)
