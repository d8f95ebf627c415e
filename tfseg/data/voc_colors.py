"""The colours of masks: PASCAL VOC's palette, and indexed PNG files that carry it."""

import io
import os

import numpy as np
from PIL import Image

from tfseg.files import write_atomic


def palette() -> np.ndarray:
    """The VOC colour map, uint8 [256, 3] (RGB).

    Bit 0 of an index goes to the top bit of red, bit 1 to green, bit 2 to blue, bit 3 to the next
    lower bit of red, and so on: neighbouring indices get unlike colours.
    """
    indices = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for place in range(3):
        for channel in range(3):
            bit = indices >> (3 * place + channel) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colors


def encode_indexed_png(mask: np.ndarray) -> bytes:
    """Returns a mask as a palette PNG file in VOC's colours.

    Args:
        mask: uint8 [H, W], pixel = label id (0 background, 255 ignore).

    Raises:
        TypeError: `mask` is not a uint8 [H, W] array.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise TypeError(f"a mask must be uint8 [H, W], not {mask.dtype} {list(mask.shape)}")
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())  # turns mode L into P, pixel values kept
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def save_indexed_png(path: str | os.PathLike[str], mask: np.ndarray) -> None:
    """Writes what `encode_indexed_png` returns, whole or not at all."""
    write_atomic(path, encode_indexed_png(mask))
