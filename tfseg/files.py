"""Writing files so that nobody ever reads half of one."""

import contextlib
import os
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a whole file or none: temporary name beside it, fsync, rename.

    Args:
        path: the file; missing folders above it are made. An older file is replaced.
        data: the content.

    Raises:
        OSError: when the file system refuses; the older file, if any, is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Makes renames within the directory `path` outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
