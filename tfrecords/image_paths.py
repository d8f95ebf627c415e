"""Finding the files that a dataset's lists name: other systems' paths, wrong folders, hidden files."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from tfseg.data.images import SUFFIXES
from tfseg.errors import InputError
from tfseg.files import is_hidden


def locate(folder: Path, name: str) -> str | None:
    """The name under which an image lies in `folder`.

    That is `name` as it stands, or as a path of Windows, or with its accents composed or decomposed: macOS
    stores them apart.

    Args:
        folder: of the images.
        name: relative to it.

    Returns:
        The name, without `./` and `//`; None if there is no such file.
    """
    slashed = name.replace("\\", "/")
    forms = [name, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    for candidate in dict.fromkeys(forms):
        if not leaves(candidate) and is_there(folder / candidate):
            return Path(candidate).as_posix()
    return None


def is_there(path: Path) -> bool:
    """Whether there is a file, or one to which there is no permission, which reading it then says."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except OSError:  # Such as a name that is too long.
        return False


def leaves(name: str) -> bool:
    """Whether a path points out of the folder that it should be relative to."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def missing_hint(folder: Path, name: str, flag: str = "--images") -> str:
    """Why there may be no file of that name in the folder, and what to do; empty if unknown.

    Args:
        folder: that the flag names.
        name: relative to it.
        flag: as people wrote it.
    """
    if "://" in name:
        return "the name is a URL: download the images and write their file names into the annotations"
    if "\\" in name:
        if PureWindowsPath(name).is_absolute():
            return f"the name is a path of a Windows machine: it must be relative to {flag}"
        name = name.replace("\\", "/")
    if is_there(folder.parent / name):
        return f"{flag}={folder.parent} would fit"
    for inside in sorted(path for path in _entries(folder) if path.is_dir()):
        if is_there(inside / name):
            return f"{flag}={inside} would fit"
    if is_there(folder / Path(name).name):
        return f"{folder / Path(name).name} is there: the name has a folder too many"
    wanted = _loosely(Path(name).name)
    for entry in sorted(_entries((folder / name).parent)):
        if _loosely(entry.name) == wanted and is_there(entry):
            return f"{entry} is there: is that what is meant?"
    return ""


def _loosely(name: str) -> str:
    # What names have in common that systems and tools spell differently: case, spaces, %20, the suffix.
    return unicodedata.normalize("NFC", Path(unquote(name).strip()).stem).casefold()


def images_in(folder: Path) -> list[str]:
    """Paths, relative to a folder, of all images in it at any depth; hidden files and folders are not taken.

    Links to folders are followed, but not to one that the link itself lies in.

    Raises:
        InputError: it cannot be read.
    """
    found = []

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for at, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = Path(os.path.realpath(at))
        folders[:] = [
            name
            for name in sorted(folders)
            if not is_hidden(name) and not real.is_relative_to(os.path.realpath(Path(at) / name))
        ]
        inside = Path(at).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in files
            if not is_hidden(name) and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder; none if there is no such folder."""
    return sorted(path.name for path in _entries(folder) if path.is_dir() and not is_hidden(path.name))


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return
