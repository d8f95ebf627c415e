"""Where the attention lies: the share of it on the object, and the share on the outermost positions.

The first is the energy-based pointing game of Wang et al. (Score-CAM, CVPR workshops 2020), on a^l of
equation (3), which is a distribution already. The second shows the trivial solution that the paper's
attention has left: to look for each label at a place of its own, where borders or padding look alike in
every image, so that z tells the label without the object.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfseg.inference.preprocessing import ImageFit


class Shares(NamedTuple):
    """Shares of one label's attention in one image, 0 to 1.

    Attributes:
        inside: On the label's pixels of the ground truth.
        border: On the outermost rows and columns of the map.
    """

    inside: float
    border: float


def attention_shares(
    attention: np.ndarray, labels: Sequence[int], truth: np.ndarray, fit: ImageFit = "pad"
) -> dict[int, Shares]:
    """Returns the shares of each label that the ground truth shows.

    Args:
        attention: float `[K, h, w]` over the network's square, each map with the sum 1.
        labels: The K label ids.
        truth: uint8 `[H, W]`, label ids.
        fit: How the image became the square, see `ModelConfig.image_fit`.
    """
    found = {}
    for label, weights in zip(labels, attention, strict=True):
        if not (truth == label).any():
            continue
        # A position's weight lies evenly on all pixels of its cell, those in the padding among them.
        covered = covered_cells(truth == label, *attention.shape[1:], fit)
        inside = float((weights * covered).sum())
        border = 1.0 - float(weights[1:-1, 1:-1].sum())
        found[label] = Shares(inside, border)
    return found


def covered_cells(is_object: np.ndarray, rows: int, columns: int, fit: ImageFit = "pad") -> np.ndarray:
    """Returns the share of an object in each cell of a map over the network's square.

    Args:
        is_object: bool `[H, W]`, over the image.
        rows: h of the map.
        columns: w of the map.
        fit: How the image became the square, see `ModelConfig.image_fit`.

    Returns:
        float64 `[h, w]`, in 0 to 1.
    """
    height, width = is_object.shape
    side = max(height, width)
    down = _cells(height, side if fit == "pad" else height, rows)
    across = _cells(width, side if fit == "pad" else width, columns)
    return down.T @ is_object @ across


def uniform_border(height: int, width: int) -> float:
    """Returns the border's share of an attention that looks everywhere alike."""
    return 1.0 - max(height - 2, 0) * max(width - 2, 0) / (height * width)


def mean_shares(images: Sequence[Mapping[int, Sequence[float]]]) -> dict[int, Shares]:
    """Averages each label over the images that show it."""
    by_label: dict[int, list[Sequence[float]]] = {}
    for shares in images:
        for label, values in shares.items():
            by_label.setdefault(int(label), []).append(values)
    return {label: Shares(*np.mean(by_label[label], axis=0).tolist()) for label in sorted(by_label)}


def _cells(pixels: int, side: int, positions: int) -> np.ndarray:
    """Returns the share that each pixel fills of each of `positions` equal parts of `side`."""
    edges = np.arange(positions + 1) * (side / positions)
    pixel = np.arange(pixels)[:, None]
    overlap = np.minimum(pixel + 1, edges[1:]) - np.maximum(pixel, edges[:-1])
    return overlap.clip(0) * (positions / side)
