"""Which bytes of an image go into a record.

Training decodes records with TensorFlow, everything else with Pillow. So that both see the same pixels, a
JPEG or PNG file is stored byte for byte if both decode it to the pixels of
`tfseg.data.images.read_image`. Whatever else that reads (transparency, CMYK without Adobe's marker, 16
bits, WebP, a PNG that ends early, ...) is stored as a PNG of its pixels: on white, 8-bit, RGB or grey.
"""

import io
import os
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfseg.data.images import exif_orientation, open_image, read_file, read_image
from tfseg.data.transform import decode_image
from tfseg.errors import InputError

from .choices import Exif

FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}
"""Pillow's names of the formats that records hold, and the records' names. An MPO is JPEGs one by one."""
SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class StoredImage:
    """An image as a record holds it.

    Attributes:
        data: bytes of a JPEG or PNG file.
        format: "jpeg" or "png".
        height: in pixels.
        width: in pixels.
        orientation: the EXIF orientation that the file had, 1 if none.
        notes: what was done to it, for the summary.
    """

    data: bytes
    format: str
    height: int
    width: int
    orientation: int
    notes: tuple[str, ...]


def load_image(
    path: str | os.PathLike[str], exif: Exif = "error", annotated: tuple[int, int] | None = None
) -> StoredImage:
    """Reads an image file for a record.

    Args:
        path: an image; what it is is told from its content.
        exif: what becomes of one that EXIF says to turn: refused, turned upright, or left as stored.
        annotated: height and width by the annotations, for the message.

    Raises:
        InputError: the file is missing, no image, damaged, too large, or to be turned.
    """
    return store_image(read_file(path, str(path), "the image "), str(path), exif, annotated)


def store_image(
    data: bytes, where: str, exif: Exif = "error", annotated: tuple[int, int] | None = None
) -> StoredImage:
    """Like `load_image`, of the bytes of a file that `where` names."""
    with open_image(data, where) as image:
        file_format, mode, orientation = image.format, image.mode, exif_orientation(image)
        width, height = image.size
    if orientation != 1 and exif == "error":
        sizes = f"has the EXIF orientation {orientation}: "
        if orientation in SWAPPED and annotated == (width, height) != (height, width):
            sizes = f"is {width}x{height} but annotated as {height}x{width}, which its EXIF orientation "
            sizes += f"{orientation} explains: "
        raise InputError(
            f"{where}: {sizes}viewers show it turned or mirrored; "
            "--exif=apply if it was annotated as shown, --exif=ignore if on the pixels as stored"
        )
    turned = orientation != 1 and exif == "apply"
    pixels = read_image(data, upright=turned, name=where)
    notes = []
    if orientation != 1:
        notes.append(f"EXIF orientation {'applied' if turned else 'ignored'}")
    record_format = FORMATS.get(file_format)
    if turned or record_format is None or not (_is_plain(data, mode) and _training_sees(data, pixels)):
        data, record_format = encode_png(pixels), "png"
        notes.append(f"stored as PNG: {file_format}, {mode}")
    return StoredImage(data, record_format, *pixels.shape[:2], orientation, tuple(notes))


def check_stored(data: bytes, where: str) -> tuple[str, int, int]:
    """Decodes the image of a record; returns "jpeg" or "png", height and width.

    Raises:
        InputError: begins with `where`, and says what is wrong.
    """
    pixels = read_image(data, upright=False, name=where)
    with open_image(data, where) as image:
        file_format = image.format
    if file_format not in FORMATS:
        raise InputError(f"{where}: is a {file_format} file; records hold JPEG and PNG")
    if not _training_sees(data, pixels):
        raise InputError(
            f"{where}: training would see other pixels than evaluation, or none; build the split again"
        )
    return FORMATS[file_format], *pixels.shape[:2]


def size_hint(stored: StoredImage, height: int, width: int) -> str:
    """What EXIF has to do with it if an image has another size than its annotation; empty if nothing."""
    if stored.orientation not in SWAPPED or (height, width) != (stored.width, stored.height):
        return ""
    if any("applied" in note for note in stored.notes):
        return f"; it was turned by its EXIF orientation {stored.orientation}: --exif=ignore leaves it"
    return (
        f"; its EXIF orientation {stored.orientation} explains it: "
        "--exif=apply turns it upright, as it was annotated"
    )


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 RGB [H, W, 3] as an 8-bit PNG, grey if all pixels are; the same bytes for the same pixels."""
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _is_plain(data: bytes, mode: str) -> bool:
    # Byte 24 of a PNG is its bits a sample; Pillow and TensorFlow happen to cut 16 of them alike.
    return mode in ("1", "L", "P", "RGB") and not (data.startswith(b"\x89PNG") and data[24] > 8)


def _training_sees(data: bytes, pixels: np.ndarray) -> bool:
    try:
        return np.array_equal(decode_image(tf.constant(data)).numpy(), pixels)
    except tf.errors.OpError:
        return False
