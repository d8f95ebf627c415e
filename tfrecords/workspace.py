"""A folder in which one process builds something, out of sight until it is whole."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfseg.errors import InputError


@contextlib.contextmanager
def workspace(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes the folder `path`, empty and ours alone, and removes it at the end.

    The folder carries a lock that the system drops when its holder dies. What a killed process left
    in it is cleared by the next one; a process that is still at work is not disturbed.

    Raises:
        InputError: another process is building there.
    """
    path = Path(path)
    lock = _lock(path)
    try:
        _clear(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int:
    while True:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the folder between our open and our lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(f"{path}: another process is building there; wait for it") from error
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _clear(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
