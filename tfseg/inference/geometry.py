"""Between an image of any size and the network's square, and back (SPEC 7, steps 1 and 5).

The image is padded with zeros at bottom and right to a square of side m = max(H, W) and resized to
the network's S; maps take the same way back: to m x m, then cropped to H x W. Pillow resamples:
separable, half-pixel centres, the kernel widened where it shrinks, as MATLAB's `imresize` does
(which mirrors pixels at the border where Pillow renormalises the kernel). Bicubic has a = -0.5 in
both.
"""

from typing import Literal

import numpy as np
from PIL import Image

Resampling = Literal["bilinear", "bicubic"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_square(image: np.ndarray, size: int) -> np.ndarray:
    """Pads an image to a square and resizes it bilinearly to the network's input.

    Args:
        image: uint8 `[H, W, 3]`.
        size: S, in pixels.

    Returns:
        uint8 `[S, S, 3]`.
    """
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


def from_square(maps: np.ndarray, height: int, width: int, resampling: Resampling = "bicubic") -> np.ndarray:
    """Brings maps over the network's square to the size of the image.

    Args:
        maps: float32 `[K, S, S]`: K maps over the padded square, of any resolution S.
        height: H of the image.
        width: W of the image.
        resampling: `bicubic`, as the authors' script, or `bilinear`. Bicubic can overshoot: clip
            probabilities.

    Returns:
        float32 `[K, H, W]`.
    """
    count, size = maps.shape[:2]
    restored = np.empty((count, height, width), np.float32)
    scale = size / max(height, width)
    # Resizing only the box that the image fills is the full m x m resize, cropped: pixels beyond
    # the box still take part in the kernel.
    box = (0, 0, min(width * scale, size), min(height * scale, size))
    for index, single in enumerate(np.asarray(maps, np.float32)):
        resized = Image.fromarray(single).resize((width, height), _RESAMPLING[resampling], box=box)
        restored[index] = np.asarray(resized)
    return restored
