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

from tfrecords.checks import is_count, is_number, short
from tfseg.data.labels import IGNORE_ID
from tfseg.errors import InputError

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
        segmentation: as in the file.
    """

    annotation_id: int | str
    value: int
    is_crowd: bool
    segmentation: Any


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
    mask = np.zeros((height, width), np.uint8)
    objects = []
    for region in regions:
        at = f"{where}, annotation {region.annotation_id}"
        pixels = decode(region.segmentation, height, width, at)
        if region.is_crowd:
            mask[pixels] = IGNORE_ID
        else:
            objects.append((pixels, region.value))
    objects.sort(key=lambda entry: entry[0].sum(), reverse=True)  # stable: ties keep their order
    for pixels, value in objects:
        mask[pixels] = value
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
    if isinstance(segmentation, dict):
        rle = _checked_rle(segmentation, height, width, where)
    elif isinstance(segmentation, list):
        polygons = _checked_polygons(segmentation, height, width, where)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise InputError(f"{where}: segmentation must be polygons or RLE, found {short(segmentation)}")
    return coco_mask.decode(rle).astype(bool)


def _checked_polygons(polygons: list[Any], height: int, width: int, where: str) -> list[list[float]]:
    if not polygons:
        raise InputError(f"{where}: segmentation has no polygon")
    reach = MAX_REACH * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"{where}: a polygon is a list x1, y1, x2, y2, ... of at least 3 points, "
                f"found {short(polygon)}"
            )
        for number in polygon:
            if not is_number(number) or abs(number) > reach:
                raise InputError(
                    f"{where}: a polygon of a {width}x{height} image has the coordinate {short(number)}"
                )
    return [[float(number) for number in polygon] for polygon in polygons]


def _checked_rle(rle: dict[str, Any], height: int, width: int, where: str) -> dict[str, Any]:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise InputError(
            f"{where}: RLE of size {short(size)} (height, width) in an image of size [{height}, {width}]"
        )
    runs = _run_lengths(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(is_count(run) for run in runs):
        raise InputError(f"{where}: RLE counts must be a string or numbers >= 0, found {short(counts)}")
    if sum(runs) != height * width:
        raise InputError(
            f"{where}: RLE counts add up to {sum(runs)} pixels, "
            f"the image has {height} x {width} = {height * width}"
        )
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode("ascii")}
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _run_lengths(counts: str, where: str) -> list[int]:
    # COCO's string: numbers in base 32, low digit first, bit 5 = more digits follow, bit 4 of the last
    # one = sign; from the fourth number on the difference to the one two before.
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift >= MAX_RUN_BITS:
            raise InputError(f"{where}: the compressed RLE is malformed at the character {character!r}")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError(f"{where}: the compressed RLE ends within a number")
    return runs
