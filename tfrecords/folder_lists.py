"""CSV files of labels: `file,label1;label2`, one row an image, a header row if wanted."""

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tfseg.errors import InputError

_HEADERS = ("file", "filename", "file_name", "file name", "image", "image_path", "path", "name")


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are neither empty nor its header, with their lines' numbers.

    Args:
        path: UTF-8 with or without a byte order mark, or UTF-16.

    Raises:
        InputError: it cannot be read, or is not CSV.
    """
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        text = data.decode(encoding)
    except OSError as error:
        raise InputError(f"--csv={path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--csv={path}: is not UTF-8 text ({error}); save it as CSV UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"--csv={path}: line {reader.line_num}: is not CSV ({error})") from error
    if rows and rows[0][1][0].strip().lower() in _HEADERS:
        del rows[0]
    if rows and all(len(row) == 1 and any(mark in row[0] for mark in ";\t") for _, row in rows):
        raise InputError(f"--csv={path}: file,label1;label2 with a comma behind the file is wanted")
    yield from rows


def labels_of(row: list[str]) -> set[str]:
    """The labels of a row; they may also stand in cells of their own."""
    return {part.strip() for cell in row[1:] for part in cell.split(";")} - {""}
