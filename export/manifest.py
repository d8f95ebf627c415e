"""`assets.extra/files.json`: size and checksum of every file of an export, which prove a copy whole."""

import hashlib
import json
from pathlib import Path

from tfseg.commands import called
from tfseg.errors import InputError
from tfseg.files import write_atomic

FILE = "files.json"


def write(version_dir: Path) -> None:
    """Lists all files of a version; to be called last."""
    files = {
        path.relative_to(version_dir).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(version_dir.rglob("*"))
        if path.is_file()
    }
    write_atomic(version_dir / "assets.extra" / FILE, (json.dumps(files, indent=2) + "\n").encode())


def check(version_dir: Path) -> int:
    """Compares a version with its list of files.

    Returns:
        The number of bytes that were read.

    Raises:
        InputError: If a file is missing, changed or not listed; names it.
    """
    path = version_dir / "assets.extra" / FILE
    try:
        listed = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read; this is no whole export of {called('export.saved_model')}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    if not isinstance(listed, dict) or not all(
        isinstance(file, dict) and isinstance(file.get("bytes"), int) for file in listed.values()
    ):
        raise InputError(f"{path}: damaged (it is no list of files with their bytes)")
    for name, file in listed.items():
        there = version_dir / name
        if not there.is_file():
            raise InputError(f"{there}: is missing; the copy is not whole")
        if there.stat().st_size != file["bytes"]:
            raise InputError(f"{there}: has {there.stat().st_size:,} bytes; exported were {file['bytes']:,}")
        if _sha256(there) != file.get("sha256"):
            raise InputError(f"{there}: other content than was exported (its checksum differs)")
    for there in sorted(version_dir.rglob("*")):
        name = there.relative_to(version_dir).as_posix()
        if there.is_file() and there != path and name not in listed:
            raise InputError(f"{there}: is no file of the export")
    return sum(file["bytes"] for file in listed.values())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
