"""Image and mask files, checked before they go into records."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from tfseg.data.images import require_size
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID
from tfseg.errors import InputError

FORMATS = {"JPEG": "jpeg", "PNG": "png"}
"""Pillow's names of the formats that records hold, and the records' names."""


def read_image(path: str | os.PathLike[str]) -> tuple[bytes, str, int, int]:
    """Reads an image file and decodes it once, so that no broken one gets into a record.

    Args:
        path: a JPEG or PNG file; what it is is told from its content.

    Returns:
        Its bytes as they are, "jpeg" or "png", height and width in pixels (as stored: EXIF
        orientation is not applied, as the annotations of COCO and VOC do not apply it either).

    Raises:
        InputError: the file is missing, of another format, or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read ({error.strerror})") from error
    image_format, height, width = check_image(data, str(path))
    return data, image_format, height, width


def check_image(data: bytes, where: str) -> tuple[str, int, int]:
    """Decodes an image; returns "jpeg" or "png", height and width.

    Raises:
        InputError: begins with `where`, and says what is wrong.
    """
    image = _decode(data, where)
    if image.format not in FORMATS:
        raise InputError(f"{where}: is a {image.format} file; JPEG and PNG are read")
    return FORMATS[image.format], image.height, image.width


def read_mask(path: str | os.PathLike[str], ids: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """Reads a mask file whose pixels are label ids.

    Args:
        path: a PNG with a palette (as VOC has them) or grey values.
        ids: label ids that may stand in it, beside 0 (background) and 255 (ignore).
        height: of its image.
        width: of its image.

    Returns:
        uint8 [height, width].

    Raises:
        InputError: the file is damaged, of another kind or size, or has other values.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the mask cannot be read ({error.strerror})") from error
    return check_mask(data, str(path), ids, height, width)


def check_mask(data: bytes, where: str, ids: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """Like `read_mask`, of the bytes of a file that `where` names."""
    image = _decode(data, where)
    if image.format != "PNG" or image.mode not in ("P", "L"):
        raise InputError(
            f"{where}: the mask is a {image.format} of mode {image.mode}; masks are PNG files with a palette "
            "or 8-bit grey values, whose pixel values are the label ids (colours would have to be turned "
            "into ids first)"
        )
    mask = np.array(image)
    if mask.shape != (height, width):
        raise InputError(
            f"{where}: the mask is {mask.shape[1]}x{mask.shape[0]} (width x height), "
            f"its image {width}x{height}"
        )
    wrong = sorted(mask_values(mask) - {BACKGROUND_ID, IGNORE_ID, *ids})
    if wrong:
        raise InputError(
            f"{where}: the mask has the value{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong))}; "
            f"0, 255 and the label ids of its domain are allowed ({min(ids)} to {max(ids)})"
        )
    return mask


def mask_values(mask: np.ndarray) -> set[int]:
    """The values that occur in a uint8 mask."""
    return set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())


def encode_mask(mask: np.ndarray) -> bytes:
    """A uint8 [H, W] mask as an 8-bit one-channel PNG, the same bytes for the same mask."""
    encoded = io.BytesIO()
    Image.fromarray(mask).save(encoded, "PNG", compress_level=9)
    return encoded.getvalue()


def _decode(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        require_size(*image.size, where)
        image.load()
    except InputError:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its decoders meet
        reason = "it is of no known image format" if "cannot identify" in str(error) else error
        raise InputError(f"{where}: cannot be decoded ({reason})") from error
    return image
