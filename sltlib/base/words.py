"""Words for people, and values as JSON has them: near names, short forms, durations, plain values."""

import dataclasses
import difflib
import math

LONGEST = 60  # characters of a value in a message


def shown(value, most: int = LONGEST) -> str:
    """A value as Python writes it, cut to so many characters: a message stays one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested as deep
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def near(name, known, n: int = 3) -> list[str]:
    """Up to n of the known names that look like this one, best first."""
    name = str(name)
    return difflib.get_close_matches(name, [str(k) for k in known], n) if len(name) <= 200 else []


def close(name, known, n: int = 3) -> str:
    """What stands behind an unknown name in a message: " (did you mean seeds?)", or " (there are: seeds, lr)"."""
    found = near(name, known, n)
    return f" (did you mean {' or '.join(found)}?)" if found else f" (there are: {', '.join(map(str, known)) or 'none'})"


def plain(value, name: str = "metrics", digits: int | None = None):
    """Values as JSON has them: dataclasses as dicts, arrays as lists, None for numbers that are not finite.

    digits : significant digits that are kept of a float, by default all.

    Raises TypeError naming the entry that is none of these.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if hasattr(value, "tolist"):  # NumPy's and torch's
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(entry, f"{name}.{key}", digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{name}[{i}]", digits) for i, entry in enumerate(value)]
    if isinstance(value, float):
        return (value if digits is None else float(f"{value:.{digits}g}")) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: give numbers, strings, lists, dicts or dataclasses")


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 45 s, 12 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
