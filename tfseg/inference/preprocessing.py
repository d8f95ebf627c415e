"""From an image of any size to the square that a network takes (SPEC 7, step 1)."""

from typing import Literal

import numpy as np
from PIL import Image

ImageFit = Literal["pad", "stretch"]
"""How an image becomes a square, see `ModelConfig.image_fit`."""


def to_square(image: np.ndarray, size: int, fit: ImageFit = "pad") -> np.ndarray:
    """Pads or stretches an image to a square and resizes it bilinearly to the network's input.

    `pad` puts zeros at bottom and right up to a square of side max(H, W). Pillow resamples:
    separable, half-pixel centres, the kernel widened where it shrinks, as MATLAB's `imresize` does
    (which mirrors pixels at the border where Pillow renormalises the kernel).

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        size: S, in pixels.
        fit: As the network was trained.

    Returns:
        uint8 `[S, S, 3]`.
    """
    if fit == "stretch":
        return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    height, width = image.shape[:2]
    side = max(height, width)
    # The long side needs no padding and goes first: a panorama never fills a huge square.
    long_done = (size, height) if width >= height else (width, size)
    resized = np.asarray(Image.fromarray(image).resize(long_done, Image.Resampling.BILINEAR))
    short_axis = 0 if width >= height else 1
    padding = [(0, 0)] * 3
    padding[short_axis] = (0, side - min(height, width))
    padded = Image.fromarray(np.pad(resized, padding))
    return np.array(padded.resize((size, size), Image.Resampling.BILINEAR))
