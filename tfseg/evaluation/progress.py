"""What an evaluation has done so far, kept so that an interrupted one goes on."""

import json
import os
from pathlib import Path
from typing import Any

from tfseg.files import read_json_lines, write_atomic


class Progress:
    """An append-only file of one JSON line an image, under a key that names what is evaluated.

    ```python
    progress = Progress("out/progress.jsonl", {"weights": fingerprint})
    progress.add(0, {"counts": counts})
    progress.done[0]["counts"]
    ```

    A file under another key (a newer checkpoint, other settings) is started anew; a damaged line and all
    behind it are dropped.

    Args:
        path: The file; its folder exists.
        key: JSON value of everything that the lines depend on.

    Attributes:
        done: What was added, by record number.
    """

    def __init__(self, path: str | os.PathLike[str], key: Any) -> None:
        self._path = Path(path)
        self.done: dict[int, dict[str, Any]] = {}
        header, *entries = read_json_lines(self._path) or [None]
        ours = json.loads(json.dumps({"key": key}))
        if header == ours:
            self.done = {entry["record"]: entry for entry in entries}
        kept = [ours, *self.done.values()]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def add(self, record: int, entry: dict[str, Any]) -> None:
        """Keeps what came out for one record; it outlasts a killed process."""
        entry = {"record": record, **entry}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self.done[record] = entry

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
