"""The text files of a folder in VOC's layout: lists of images, and XML annotations in any encoding."""

import codecs
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from tfseg.errors import InputError

from .checks import MalformedError

_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["'][^>]*\?>""")
# What files so declared hold, as browsers read them: the later, wider sets.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}


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
                f"found {line!r}"
            )
        names.append(name)
    if not names:
        raise InputError(f"{path}: lists no image")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: lists the image {name} {count} times")
    return names


def _is_stem(name: str, has_image: Callable[[str], bool]) -> bool:
    if Path(name).name != name or "\\" in name or "\0" in name:
        return False
    if re.search(r"[ \t]", name) or re.fullmatch(r".+\.(jpe?g|png)", name, re.IGNORECASE):
        return has_image(name)
    return True


def read_objects(path: Path) -> list[str]:
    """The class names of the objects in a VOC annotation, in their order.

    Raises:
        MalformedError: the file is missing or no VOC annotation.
    """
    try:
        root = _parse(path.read_bytes())
    except OSError as error:
        message = f"{path}: the annotation cannot be read ({error.strerror})"
        raise MalformedError("annotation cannot be read", message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: is not XML of the encoding that it declares ({error})"
        raise MalformedError("annotation is not XML", message) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MalformedError("annotation is not XML", f"{path}: is not XML ({error})") from error
    if root.tag != "annotation":
        message = f"{path}: is not a VOC annotation: <annotation> is wanted, found <{root.tag}>"
        raise MalformedError("not a VOC annotation", message)
    return [(element.findtext("name") or "").strip() for element in root.findall("object")]


def _parse(data: bytes) -> ElementTree.Element:
    declared = _DECLARATION.match(data)
    name = codecs.lookup(declared[1].decode()).name if declared else ""
    if name in _WIDER or name.startswith(("euc", "shift", "gb", "hz", "iso2022", "johab", "cp9")):
        # Expat knows one-byte encodings and Unicode only.
        return ElementTree.fromstring(data[declared.end() :].decode(_WIDER.get(name, name)))
    return ElementTree.fromstring(data)
