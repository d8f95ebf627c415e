"""Folders that one process writes at a time, and what dead processes left in them.

The locks are the system's (`flock`): they die with their holders, so that none is ever left behind.
"""

import contextlib
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfseg.errors import InputError
from tfseg.files import TEMPORARY, require_output_folder

_LOCK = ".lock"


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike[str], name: str, parts: Sequence[str] = ()) -> Iterator[None]:
    """Keeps other processes from writing into a folder while the block runs.

    Temporary files of dead processes are removed first. A file system without locks keeps nobody out.

    Args:
        folder: The folder; made if absent, and removed again if the block leaves it empty.
        name: Stands before the folder in messages, such as `--output_dir=`.
        parts: Folders in it that are written, too.

    Raises:
        InputError: Another process writes there; says which. Or nothing can be written there.
    """
    folder = Path(folder)
    require_output_folder(folder, name)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / _LOCK
    descriptor = _lock_file(lock, f"{name}{folder}")
    try:
        for part in (folder, *(folder / part for part in parts)):
            _sweep(part)
        with _named(folder):
            yield
    finally:
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):  # It is not empty.
                folder.rmdir()


@contextlib.contextmanager
def workspace(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes the folder `path`, empty and ours alone, in which something is built out of sight.

    What a killed process left in it is cleared by the next one; a process that is still at work is not
    disturbed. The folder is removed at the end, unless it was renamed.

    Raises:
        InputError: Another process is building there.
    """
    path = Path(path)
    while True:
        path.mkdir(parents=True, exist_ok=True)
        if (descriptor := _try_lock(path)) is not None:
            break
    try:
        for entry in path.iterdir():
            _remove(entry)
        with _named(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_dead(folder: Path, names: str, contents: str) -> None:
    """Removes folders that dead processes built, by their names; those of living ones stay.

    Args:
        folder: Where they lie; it need not be there.
        names: Pattern of their names; a group `pid` is the number of the process that made it.
        contents: Pattern of what is in them: a folder that holds anything else is somebody's own.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(names, path.name)
        if not match or not path.is_dir() or path.is_symlink() or _is_alive(match.groupdict().get("pid")):
            continue
        if all(re.fullmatch(contents, entry.name) for entry in path.iterdir()):
            with contextlib.suppress(InputError), workspace(path):
                pass


def _lock_file(path: Path, shown: str) -> int | None:
    """Locks a file; None where the file system has no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise InputError(f"{shown}: {holder} is writing there; wait for it, or stop it") from error
        except OSError:
            os.close(descriptor)
            path.unlink()
            return None
        # Its last holder may have removed it between our open and our lock.
        if _is_at(descriptor, path):
            break
        os.close(descriptor)
    with contextlib.suppress(OSError):  # A full disk takes no name.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _try_lock(path: Path) -> int | None:
    """Locks a folder; None if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"{path}: another process is building there; wait for it") from error
    if _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Gives the folder to errors of the system that name no file, as writing to an open one does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


def _sweep(folder: Path) -> None:
    """Removes the temporary files of `write_atomic` whose processes are dead."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = TEMPORARY.fullmatch(path.name)
        if match and path.is_file() and not _is_alive(match["pid"]):
            path.unlink(missing_ok=True)


def _is_alive(pid: str | None) -> bool:
    """Whether another process of that number runs; ours, as in a new container, has left nothing yet."""
    if pid is None or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
