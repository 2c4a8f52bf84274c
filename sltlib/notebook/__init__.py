"""What stands between a notebook and its profile: parameters, recipes, outputs; the pipeline, tuning, the README's tables.

A notebook needs one name of it, `from sltlib import notebook`:

    p = notebook.check("02_table1_cnn", globals())  # in the cell after the parameters
    ...                                             # p.fields, p.recipe(arm), p.output
    p.finish(table=table, metrics=metrics, claims=claims, tickets=tickets)  # the last cell
"""

from sltlib.notebook.parameters import Parameters
from sltlib.notebook.recipes import folder as tuning
from sltlib.notebook.by_profile import check

__all__ = ["Parameters", "check", "tuning"]
