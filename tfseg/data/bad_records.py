"""Records that cannot be used, and what `--on_bad_record=skip` does about them."""

import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal

from tfseg.errors import RecordError

if TYPE_CHECKING:
    from tfseg.data.records import Split

OnBadRecord = Literal["fail", "skip"]


class BadRecords:
    """The records that were skipped, each told once on stderr; for any number of threads.

    ```python
    >>> str(BadRecords())
    'no record was skipped'

    ```

    Args:
        policy: `fail` skips none: the first one is raised.
    """

    def __init__(self, policy: OnBadRecord = "skip") -> None:
        self.policy: OnBadRecord = policy
        self._kinds: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of different records."""
        return len(self._kinds)

    def __str__(self) -> str:
        """One line for people: how many, by kind."""
        if not self._kinds:
            return "no record was skipped"
        kinds = ", ".join(f"{kind}: {count}" for kind, count in self.by_kind().items())
        return f"{len(self)} bad records were skipped ({kinds})"

    def by_kind(self) -> dict[str, int]:
        """Number of different records of each kind of fault, by kind."""
        with self._lock:
            return dict(sorted(Counter(self._kinds.values()).items()))

    def add(self, split: "Split", index: int, error: RecordError) -> None:
        """Notes record `index` of a split, and what is wrong with it.

        Raises:
            RecordError: `error`, if none is to be skipped.
        """
        if self.policy == "fail":
            raise error
        with self._lock:
            if (split.name, index) not in self._kinds:
                self._kinds[split.name, index] = error.kind
                print(f"skipped: {error}", file=sys.stderr)
