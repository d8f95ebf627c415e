"""Which image files a command line names, and what the pictures made of them are called."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfseg.data.images import SUFFIXES
from tfseg.errors import InputError
from tfseg.files import is_hidden


def named_files(words: Sequence[str]) -> Iterator[Path]:
    """Yields the files that words on the command line name.

    Args:
        words: Files; folders, of which all images at any depth are taken, but no hidden ones; or globs
            (`**` for any depth). A word that names nothing is yielded as it stands, to fail as an image.

    Raises:
        InputError: If a folder holds no image.
    """
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in SUFFIXES
                and not any(map(is_hidden, p.relative_to(path).parts))
                and p.is_file()
            )
            if not inside:
                raise InputError(f"{path}: the folder holds no image ({', '.join(SUFFIXES)})")
            yield from inside
        elif not path.exists() and glob.has_magic(word):
            found = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
            yield from [p for p in found if p.is_file()] or [path]
        else:
            yield path


def output_names(files: Sequence[Path]) -> list[str]:
    """Names each file's pictures by its stem, numbered where several files share one."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = file.stem, 1
        while name in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
