"""What an evaluation has done so far, kept so that an interrupted one goes on."""

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

from tfseg.files import json_object, read_json_lines, write_atomic


class Progress:
    """An append-only file of one JSON line an image, under a key that names what is evaluated.

    ```python
    progress = Progress("out/progress.jsonl", {"weights": fingerprint})
    progress.add(0, {"counts": counts})
    progress.done[0]["counts"]
    ```

    A file under another key (a newer checkpoint, other settings) is started anew; of a damaged one the lines
    before the damage count. Each line holds its own checksum.

    Args:
        path: The file; its folder is made.
        key: JSON value of everything that the lines depend on; None starts anew in any case.

    Attributes:
        done: What was added, by record number.
    """

    def __init__(self, path: str | os.PathLike[str], key: Any) -> None:
        self._path = Path(path)
        self.done: dict[int, dict[str, Any]] = {}
        header = json.dumps({"key": key}, sort_keys=True)
        first = header.encode()
        if key is not None and self._path.exists() and self._path.read_bytes().startswith(first + b"\n"):
            lines = read_json_lines(self._path, lambda line: {} if line == first else _entry(line))
            self.done = {entry["record"]: entry for entry in lines if entry}
        kept = [header, *(_line(entry) for entry in self.done.values())]
        write_atomic(self._path, "".join(line + "\n" for line in kept).encode())
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

    def add(self, record: int, entry: dict[str, Any]) -> None:
        """Keeps what came out for one record; it outlasts a killed process.

        Raises:
            OSError: When the file system refuses; what was added before stays.
        """
        entry = {"record": record, **entry}
        line = (_line(entry) + "\n").encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(self._path)
            raise
        self.done[record] = entry

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _line(entry: dict[str, Any]) -> str:
    text = json.dumps(entry)
    return f'{text[:-1]}, "crc32": {zlib.crc32(text.encode())}}}'


def _entry(line: bytes) -> dict[str, Any]:
    entry = json_object(line)
    checksum = entry.pop("crc32", None)
    if checksum != zlib.crc32(json.dumps(entry).encode()):
        raise ValueError("another checksum")
    return entry
