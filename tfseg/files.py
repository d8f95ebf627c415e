"""Writing files so that nobody ever reads half of one, and reading those that people write."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tfseg.errors import InputError

_PATTERN = frozenset("[]*?{}\\")
_LONGEST_NAME = 255


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a whole file or none: temporary name beside it, fsync, rename.

    Args:
        path: the file; missing folders above it are made. An older file is replaced.
        data: the content.

    Raises:
        InputError: what is there is no file, as /dev/null, which the rename would replace.
        OSError: when the file system refuses; the older file, if any, is then as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(
            f"{path}: is a {'folder' if path.is_dir() else 'device or a pipe'}; a file is needed"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def _temporary_name(name: str) -> str:
    # A name may be as long as the file system allows, which leaves no room for a suffix.
    temporary = f".{name}.{os.getpid()}.tmp"
    if len(os.fsencode(temporary)) <= _LONGEST_NAME:
        return temporary
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.{os.getpid()}.tmp"


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Makes renames within the directory `path` outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_output_folder(path: str | os.PathLike[str], name: str) -> None:
    """Refuses a folder for output in which nothing could be written, before any work is done for it.

    Args:
        path: the folder; it need not be there yet.
        name: stands before the path in messages, such as `--output_dir=`.

    Raises:
        InputError: it lies under a file, may not be written to, or is no UTF-8.
    """
    _require_utf8(path, name)
    there = Path(path)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{name}{path}: {there} is a file; a folder is needed")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{name}{path}: there is no permission to write into {there}")


def require_plain_path(path: str | os.PathLike[str], name: str) -> None:
    """Refuses a path that TensorFlow's checkpoint readers would take for a pattern.

    They would write checkpoints there and never find them again.

    Args:
        path: of a folder of checkpoints.
        name: stands before the path in messages, such as `--model_dir=`.

    Raises:
        InputError: it has a character of patterns, or is no UTF-8.
    """
    _require_utf8(path, name)
    found = sorted(_PATTERN.intersection(os.fspath(path)))
    if found:
        raise InputError(
            f"{name}{path}: has {' '.join(found)} in its path, which TensorFlow takes for a pattern when it "
            "looks for checkpoints; move or rename the folder (whatever checkpoints are in it stay whole)"
        )


def _require_utf8(path: str | os.PathLike[str], name: str) -> None:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name}{os.fspath(path)!a}: is not UTF-8, and TensorFlow takes no other") from error


def read_json(path: str | os.PathLike[str], name: str | None = None) -> Any:
    """The content of a JSON file: UTF-8 with or without a byte order mark, UTF-16 or UTF-32.

    Args:
        path: the file.
        name: what messages call it; the path if None.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    name = name or os.fspath(path)
    try:
        return json.loads(Path(path).read_bytes())  # bytes: json tells the encoding from them
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not JSON ({error})") from error


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a log with one JSON object a line, as far as it is whole.

    A killed process leaves its last line unfinished; what stands behind a damaged line is left out as well.

    Args:
        path: the file; one that is not there holds nothing.
    """
    found: list[dict[str, Any]] = []
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(entry, dict):
            break
        found.append(entry)
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is the system's, not the user's, as `._a.jpg` of macOS."""
    return name.startswith(".") or name == "__MACOSX"
