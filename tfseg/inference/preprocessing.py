"""From an image of any size to the square that a network takes (SPEC 7, step 1)."""

from typing import Literal

import numpy as np
from PIL import Image

ImageFit = Literal["pad", "stretch"]
"""How an image becomes a square, see `ModelConfig.image_fit`."""


def to_square(image: np.ndarray, size: int, fit: ImageFit = "pad") -> np.ndarray:
    """Pads or stretches an image to a square and resizes it bilinearly to the network's input.

    `pad` puts zeros at bottom and right up to a square of side max(H, W). Pillow resamples, the long side
    first: separable, half-pixel centres, the kernel widened where it shrinks, as MATLAB's `imresize` does
    (which mirrors pixels at the border where Pillow renormalises the kernel).

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        size: S, in pixels.
        fit: As the network was trained.

    Returns:
        uint8 `[S, S, 3]`.
    """
    height, width = image.shape[:2]
    # The long side goes first: it needs no padding, and a panorama never fills a huge array. Each pass is a
    # call of its own, for its bytes are rounded, and versions of Pillow differ in which they do first.
    landscape = width >= height
    long_done = (size, height) if landscape else (width, size)
    resized = Image.fromarray(image).resize(long_done, Image.Resampling.BILINEAR)
    if fit == "pad":
        missing = abs(width - height)
        rows, columns = (missing, 0) if landscape else (0, missing)
        resized = Image.fromarray(np.pad(resized, ((0, rows), (0, columns), (0, 0))))
    return np.array(resized.resize((size, size), Image.Resampling.BILINEAR))
