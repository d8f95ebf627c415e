"""The text files of a folder in VOC's layout: lists of images, and XML annotations in any encoding."""

import codecs
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from tfseg.data.labels import is_name
from tfseg.errors import InputError, RecordError

from .checks import short

_DECLARATION = re.compile(r"""^\s*<\?xml[^>]*?(?:encoding\s*=\s*["']([^"']*)["'][^>]*)?\?>""")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
"""How a file of these encodings starts."""
# What files so declared hold, as browsers read them: the later, wider sets.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}
_OTHER_NAMES = {"x-gbk": "gbk", "windows-31j": "cp932", "x-sjis": "cp932", "windows-949": "cp949"}


def read_list(path: Path, has_image: Callable[[str], bool]) -> list[str]:
    """The names of images that a list has, one a line.

    Args:
        path: UTF-8 with or without a byte order mark, or UTF-16.
        has_image: whether there is an image of a name.

    Raises:
        InputError: the list is missing, empty, no list of names, or names an image twice.
    """
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        text = data.decode(encoding)
    except OSError as error:
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
        raise InputError(f"{path}: cannot be read ({error.strerror}); lists there: {there}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file ({error})") from error
    names = []
    for number, line in enumerate(text.replace("\r", "\n").split("\n"), start=1):
        name = line.strip(" \t\n\f\v")
        if not name:
            continue
        if not _is_stem(name, has_image):
            raise InputError(
                f"{path}: line {number}: the name of one image, without folder and suffix, is wanted, "
                f"found {short(line)}"
            )
        names.append(name)
    if not names:
        raise InputError(f"{path}: lists no image")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: lists the image {name} {count} times")
    return names


def _is_stem(name: str, has_image: Callable[[str], bool]) -> bool:
    if not is_name(name) or Path(name).name != name or "\\" in name or "\0" in name:
        return False
    if re.search(r"[ \t]", name) or re.fullmatch(r".+\.(jpe?g|png)", name, re.IGNORECASE):
        return has_image(name)
    return True


def read_objects(path: Path) -> list[str]:
    """The class names of the objects in a VOC annotation, in their order.

    Raises:
        RecordError: the file is missing or no VOC annotation.
    """
    try:
        root = _parse(path.read_bytes())
    except OSError as error:
        message = f"{path}: the annotation cannot be read ({error.strerror})"
        raise RecordError("annotation cannot be read", message) from error
    except UnicodeError as error:
        message = f"{path}: is not XML of the encoding that it declares ({error})"
        raise RecordError("annotation is not XML", message) from error
    except LookupError as error:
        message = f"{path}: declares an encoding that is not known ({error})"
        raise RecordError("annotation's encoding", message) from error
    except (ElementTree.ParseError, ValueError) as error:
        raise RecordError("annotation is not XML", f"{path}: is not XML ({error})") from error
    if root.tag != "annotation":
        message = f"{path}: is not a VOC annotation: <annotation> is wanted, found <{short(root.tag)}>"
        raise RecordError("not a VOC annotation", message)
    names = [(element.findtext("name") or "").strip() for element in root.findall("object")]
    if "" in names:
        message = f"{path}: object {names.index('') + 1} has no name"
        raise RecordError("object without a name", message)
    return names


def _parse(data: bytes) -> ElementTree.Element:
    # Decoded here: expat knows one-byte encodings and Unicode only, and takes the declaration at its word.
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARATION.match(data.decode("latin-1"))
        encoding = declared[1].strip().lower() if declared and declared[1] else "utf-8"
        encoding = codecs.lookup(_OTHER_NAMES.get(encoding, encoding)).name
        if encoding.startswith(("utf-16", "utf-32")):  # .NET writes it into files that it stores as UTF-8.
            encoding = "utf-8"
    text = data.decode(_WIDER.get(encoding, encoding))
    return ElementTree.fromstring(_DECLARATION.sub("", text.lstrip(), count=1))
