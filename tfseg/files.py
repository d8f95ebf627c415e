"""Writing files so that nobody ever reads half of one, and reading those that people write."""

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfseg.errors import InputError

_PATTERN = frozenset("[]*?{}\\")
_LONGEST_NAME = 255
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.tmp")
"""Names of the files that `write_atomic` renames when they are whole; `pid` is the process that writes."""


def refusal(error: BaseException, path: str | os.PathLike[str] | None = None) -> str | None:
    """Says in words why the system refused a file: `PATH: disk full`.

    Args:
        error: An `OSError`, or an error of TensorFlow's, which gives the system's reason in its text.
        path: what was written, where that is known better than from the error.

    Returns:
        The words, or None if the error is of another kind.
    """
    if isinstance(error, OSError) and error.errno is not None:
        reason, named = os.strerror(error.errno), error.filename
    elif isinstance(error, OSError) or type(error).__module__.startswith("tensorflow."):
        found = _REFUSED.search(str(error))
        if found is None:
            return None
        reason, named = found["reason"], found["path"]
    else:
        return None
    path = path or named
    if path is None and reason not in _WORDS:
        return None
    return ": ".join(os.fsdecode(part) for part in (path, _WORDS.get(reason, reason)) if part)


_WORDS = {
    os.strerror(number): words
    for number, words in {
        errno.ENOSPC: "disk full",
        errno.EDQUOT: "disk quota used up",
        errno.EROFS: "read-only file system",
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.EIO: "the disk failed",
        errno.EISDIR: "is a folder; a file is needed",
        errno.ENOTDIR: "a file is in the place of a folder",
        errno.ENAMETOOLONG: "the name is too long",
    }.items()
}
_REFUSED = re.compile(rf"(?:(?P<path>/[^;\n]*); )?(?P<reason>{'|'.join(map(re.escape, _WORDS))})")


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
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
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
        reason = "is on a read-only file system" if _is_read_only(there) else "may not be written to"
        raise InputError(f"{name}{path}: no permission, {there} {reason}")


def require_output_file(path: str | os.PathLike[str], name: str) -> None:
    """Refuses a file for output that could not be written, before any work is done for it.

    Args:
        path: the file; neither it nor its folder need be there yet.
        name: stands before the path in messages, such as `--output=`.

    Raises:
        InputError: it is a folder, or nothing can be written into its folder.
    """
    if Path(path).is_dir():
        raise InputError(f"{name}{path}: is a folder; a file is needed")
    require_output_folder(Path(path).parent, f"{name}{path}: folder ")


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


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


def read_json_lines(
    path: str | os.PathLike[str], parse: Callable[[bytes], dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The objects of a log with one JSON object a line, up to the first line that is damaged.

    Args:
        path: the file; one that is not there holds nothing.
        parse: turns a line into its object, or raises `ValueError`; `json_object` if None.

    Returns:
        The objects. What stands behind a damaged line is left out, and one line on stderr says so; a last
        line that a killed process did not finish is no damage.
    """
    found: list[dict[str, Any]] = []
    for line in Path(path).read_bytes().split(b"\n")[:-1] if Path(path).exists() else ():
        try:
            found.append((parse or json_object)(line))
        except (ValueError, RecursionError):
            kept = len(found)
            print(f"{path}: line {kept + 1} is damaged; the {kept} before it are kept", file=sys.stderr)
            break
    return found


def json_object(line: bytes, number: str | None = None) -> dict[str, Any]:
    """The object that a line of JSON holds.

    Args:
        line: UTF-8.
        number: a field that must be there, a whole number.

    Raises:
        ValueError: it holds something else.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or (number is not None and not isinstance(found.get(number), int)):
        raise ValueError("another value")
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is the system's, not the user's, as `._a.jpg` of macOS."""
    return name.startswith(".") or name == "__MACOSX"
