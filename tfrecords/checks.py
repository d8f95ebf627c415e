"""Questions about values that were read from somebody's files, and what is wrong with them, gathered."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tfseg.data.labels import is_name
from tfseg.errors import InputError, RecordError

from .choices import Malformed

MAX_TOLD = 20
"""Of many messages so many are shown."""


@dataclass
class Findings:
    """All that is malformed in a file, so that it can be told at once.

    Attributes:
        policy: "fail" refuses the file, "skip" leaves out what is malformed.
        found: in the order of the file.
    """

    policy: Malformed = "fail"
    found: list[RecordError] = field(default_factory=list)

    def by_kind(self) -> dict[str, int]:
        """Counts for a summary."""
        counts = Counter(finding.kind for finding in self.found)
        return {f"malformed, left out: {kind}": count for kind, count in sorted(counts.items())}

    def settle(self, where: str) -> None:
        """Raises all findings as one, unless they are to be skipped.

        Raises:
            InputError: there are some, and the policy is "fail".
        """
        if not self.found or self.policy == "skip":
            return
        count, escape = len(self.found), "--malformed=skip leaves out what is malformed"
        if count == 1:
            raise InputError(f"{self.found[0]}; {escape}")
        kinds = Counter(finding.kind for finding in self.found)
        told = "; ".join(str(finding) for finding in self.found[:MAX_TOLD])
        more = f"; and {count - MAX_TOLD} more" if count > MAX_TOLD else ""
        raise InputError(
            f"{where}: {count} malformed entries ({', '.join(f'{kind}: {n}' for kind, n in kinds.items())}): "
            f"{told}{more}; {escape}"
        )


def whole(value: Any) -> int | None:
    """A whole number, also where it is written 64.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def count(value: Any) -> int | None:
    """A whole number of at least 0, also where it is written 64.0; None for anything else."""
    number = whole(value)
    return number if number is not None and number >= 0 else None


def identifier(value: Any) -> int | str | None:
    """A whole number or a name, see `is_name`; None for anything else."""
    return value if is_name(value) else whole(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def short(value: Any) -> str:
    """A value for an error message, cut to a length that a line can hold."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
