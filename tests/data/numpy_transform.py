"""Padding and resizing of SPEC 4.5 in NumPy; shares nothing with the transform it checks."""

import numpy as np


def pad(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To a square at the bottom and right, black and ignored."""
    side = max(mask.shape)
    square, square_mask = np.zeros((side, side, 3), np.uint8), np.full((side, side), 255, np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    square_mask[: mask.shape[0], : mask.shape[1]] = mask
    return square, square_mask


def bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel centres, edges repeated, no smoothing: output pixel i samples (i + 1/2) scale - 1/2."""
    scale = len(image) / size
    centre = np.clip((np.arange(size) + 0.5) * scale - 0.5, 0, len(image) - 1)
    low = np.floor(centre).astype(int)
    high, part = np.minimum(low + 1, len(image) - 1), centre - low
    rows = (1 - part)[:, None, None] * image[low] + part[:, None, None] * image[high]
    return (1 - part)[None, :, None] * rows[:, low] + part[None, :, None] * rows[:, high]


def nearest(mask: np.ndarray, size: int, side: int) -> np.ndarray:
    """The pixel under each centre; on a border between two pixels the one before (-1) or behind (1)."""
    centre = (np.arange(size) + 0.5) * len(mask) / size + side * 1e-4
    index = np.clip(centre.astype(int), 0, len(mask) - 1)
    return mask[index][:, index]
