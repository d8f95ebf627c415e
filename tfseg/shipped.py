"""Recipes and label maps that come with the package, found by name: `tfseg:official/joint.cfg`."""

import difflib
import os
from pathlib import Path

from tfseg.errors import InputError

PREFIX = "tfseg:"
"""Begins the name of a file that ships, wherever a flag takes a recipe, a folder of them or a label map."""

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "configs").is_dir()
"""Whether this is an installation, which holds `configs`, `export` and `tfrecords` in the package; in the
repository they stand beside it."""
FOLDER = _PACKAGE / "configs" if INSTALLED else _PACKAGE.parent / "configs"


def recipes() -> list[str]:
    """Returns the folders that hold recipes, as they are named after `tfseg:`."""
    return sorted({path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.cfg")})


def locate(path: str | os.PathLike[str]) -> str:
    """Returns the path of what a name with the prefix `tfseg:` means; any other path as it is.

    ```python
    >>> locate("my.cfg")
    'my.cfg'
    >>> locate("tfseg:labels/voc20_coco60.json").endswith("configs/labels/voc20_coco60.json")
    True

    ```

    Raises:
        InputError: If nothing of this name ships.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX):
        return text
    name = text.removeprefix(PREFIX).strip("/")
    found = FOLDER / name
    if name and found.exists() and found.resolve().is_relative_to(FOLDER.resolve()):
        return str(found)
    there = sorted(one.relative_to(FOLDER).as_posix() for one in FOLDER.rglob("*"))
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.6)
    folders = [one for one in there if (FOLDER / one).is_dir() and "/" not in one]
    hint = f"did you mean {PREFIX}{near[0]}?" if near else f"what ships is in {', '.join(folders)}"
    raise InputError(f"{text}: does not ship; {hint}")
