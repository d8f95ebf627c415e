"""Small questions about values that were read from somebody's JSON."""

import math
from typing import Any


def is_id(value: Any) -> bool:
    """Whether it is a whole number or a string that can be printed."""
    if isinstance(value, str):
        return bool(value) and value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def short(value: Any) -> str:
    """A value for an error message, cut to a length that a line can hold."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
