"""Finding the files that a dataset's lists name: other systems' paths, wrong folders, hidden files."""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from tfseg.data.images import SUFFIXES
from tfseg.errors import InputError
from tfseg.files import is_hidden


def locate(folder: Path, name: str) -> str | None:
    """The name under which an image lies in `folder`: as it stands, or as a path of Windows.

    Args:
        folder: of the images.
        name: relative to it.

    Returns:
        `name`, its other form, or None if there is no such file.
    """
    for candidate in (name, name.replace("\\", "/")):
        if not leaves(candidate) and (folder / candidate).is_file():
            return candidate
    return None


def leaves(name: str) -> bool:
    """Whether a path points out of the folder that it should be relative to."""
    return Path(name).is_absolute() or ".." in Path(name).parts


def missing_hint(folder: Path, name: str) -> str:
    """Why there may be no image of that name in the folder, and what to do; empty if unknown."""
    if "://" in name:
        return "the name is a URL: download the images and write their file names into the annotations"
    if "\\" in name:
        if PureWindowsPath(name).is_absolute():
            return "the name is a path of a Windows machine: it must be relative to --images"
        name = name.replace("\\", "/")
    if (folder.parent / name).is_file():
        return f"--images={folder.parent} would fit"
    for inside in sorted(path for path in _entries(folder) if path.is_dir()):
        if (inside / name).is_file():
            return f"--images={inside} would fit"
    if (folder / Path(name).name).is_file():
        return f"{folder / Path(name).name} is there: the name has a folder too many"
    return ""


def images_in(folder: Path) -> list[str]:
    """Paths, relative to a folder, of all images in it at any depth; hidden files and folders are not taken.

    Raises:
        InputError: it cannot be read.
    """
    found = []

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for at, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        inside = Path(at).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in files
            if not is_hidden(name) and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return
