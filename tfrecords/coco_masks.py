"""Masks from COCO's annotations.

Crowd regions are 255 and lie lowest. Objects are painted from the largest to the smallest (by the
pixels they cover, ties in the order of the file), so that what lies in front of a large object is not
lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tfseg.data.labels import IGNORE_ID
from tfseg.errors import RecordError

from .checks import count, is_number, short, whole

MAX_RUN_BITS = 35
"""Longest number in a compressed RLE; a longer one would overflow in pycocotools."""
MAX_REACH = 10
"""A polygon may leave its image, but no further than so many times the image's longer side."""


@dataclass(frozen=True)
class Region:
    """One annotation.

    Attributes:
        annotation_id: as in the file.
        value: what its pixels become in the mask.
        is_crowd: whether it is a crowd region.
        segmentation: as in the file; None if there is but a box.
        names_label: whether it makes its category a label of the image.
    """

    annotation_id: int | str
    value: int
    is_crowd: bool
    segmentation: Any
    names_label: bool = True


def paint(regions: Sequence[Region], height: int, width: int, where: str) -> np.ndarray:
    """The mask of an image, uint8 [height, width]; see the module's docstring.

    Args:
        regions: in the order of the file.
        height: of the image.
        width: of the image.
        where: names the image in error messages.

    Raises:
        InputError: a segmentation is malformed.
    """
    return lay(regions, decode_all(regions, height, width, where), height, width)


def decode_all(regions: Sequence[Region], height: int, width: int, where: str) -> list[np.ndarray]:
    """The pixels of each region, bool [height, width]; arguments and errors as `paint`."""
    return [
        decode(region.segmentation, height, width, f"{where}, annotation {region.annotation_id}")
        for region in regions
    ]


def lay(regions: Sequence[Region], pixels: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Lays regions, of which `decode_all` gave the pixels, on one another; see the module's docstring."""
    mask = np.zeros((height, width), np.uint8)
    objects = []
    for region, covered in zip(regions, pixels, strict=True):
        if region.is_crowd:
            mask[covered] = IGNORE_ID
        else:
            objects.append((covered, region.value))
    objects.sort(key=lambda entry: entry[0].sum(), reverse=True)  # stable: ties keep their order
    for covered, value in objects:
        mask[covered] = value
    return mask


def decode(segmentation: Any, height: int, width: int, where: str) -> np.ndarray:
    """The pixels of a segmentation in any of COCO's three forms, bool [height, width].

    Everything is checked before pycocotools sees it: its C code trusts what it is given.

    Args:
        segmentation: a list of polygons `[x1, y1, x2, y2, ...]`, or `{"size": [height, width], "counts": c}`
            with run lengths as a list of numbers or as COCO's compressed string.
        height: of the image.
        width: of the image.
        where: names the annotation in error messages.

    Raises:
        InputError: the segmentation is none of these.
    """
    checked = check(segmentation, height, width, where)
    if isinstance(checked, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(checked, height, width))
    elif isinstance(checked["counts"], list):
        rle = coco_mask.frPyObjects(checked, height, width)
    else:
        rle = {**checked, "counts": checked["counts"].encode("ascii")}
    return coco_mask.decode(rle).astype(bool)


def check(
    segmentation: Any, height: int, width: int, where: str
) -> list[list[float]] | list[dict[str, Any]] | dict[str, Any]:
    """Holds a segmentation to COCO's forms without making its pixels; arguments as `decode`.

    Returns:
        Polygons, run lengths, or several run lengths that are united.

    Raises:
        RecordError: it has none of the forms.
    """
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, height, width, where)
    if not isinstance(segmentation, list):
        found = short(segmentation)
        raise RecordError("no segmentation", f"{where}: segmentation must be polygons or RLE, found {found}")
    if segmentation and all(isinstance(part, dict) for part in segmentation):
        parts = [_checked_rle(part, height, width, where) for part in segmentation]
        if len(parts) == 1:
            return parts[0]
        return [{**part, "counts": _counts(part["counts"], where)} for part in parts]
    return _checked_polygons(segmentation, height, width, where)


def _checked_polygons(polygons: list[Any], height: int, width: int, where: str) -> list[list[float]]:
    if not polygons:
        raise RecordError("empty segmentation", f"{where}: segmentation has no polygon")
    if all(is_number(number) for number in polygons):
        raise RecordError(
            "flat list of numbers",
            f"{where}: a polygon is a list of at least 3 points within a list of polygons, "
            f"found the numbers {short(polygons)}",
        )
    reach = MAX_REACH * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise RecordError(
                "polygon of fewer than 3 points",
                f"{where}: a polygon is a list x1, y1, x2, y2, ... of at least 3 points, "
                f"found {short(polygon)}",
            )
        for number in polygon:
            if not is_number(number) or abs(number) > reach:
                raise RecordError(
                    "polygon's coordinate",
                    f"{where}: a polygon of a {width}x{height} image has the coordinate {short(number)}",
                )
    return [[float(number) for number in polygon] for polygon in polygons]


def _checked_rle(rle: dict[str, Any], height: int, width: int, where: str) -> dict[str, Any]:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise RecordError(
            "size of RLE",
            f"{where}: RLE of size {short(size)} (height, width) in an image of size [{height}, {width}]",
        )
    runs = _counts(counts, where)
    if sum(runs) != height * width:
        raise RecordError(
            "sum of RLE",
            f"{where}: RLE counts add up to {sum(runs)} pixels, "
            f"the image has {height} x {width} = {height * width}",
        )
    return {"size": [height, width], "counts": counts if isinstance(counts, str) else runs}


def _counts(counts: Any, where: str) -> list[int]:
    runs = _run_lengths(counts, where) if isinstance(counts, str) else counts
    numbers = [count(run) for run in runs] if isinstance(runs, list) else [None]
    if None in numbers:
        raise RecordError(
            "counts of RLE",
            f"{where}: RLE counts must be a string or numbers >= 0, found {short(counts)}",
        )
    return numbers


def _run_lengths(counts: str, where: str) -> list[int]:
    # COCO's string: numbers in base 32, low digit first, bit 5 = more digits follow, bit 4 of the last
    # one = sign; from the fourth number on the difference to the one two before.
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift >= MAX_RUN_BITS:
            raise RecordError(
                "string of RLE", f"{where}: the compressed RLE is malformed at the character {character!r}"
            )
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise RecordError("string of RLE", f"{where}: the compressed RLE ends within a number")
    return runs
