"""Where the attention lies: the share of it on the object, and the share on the outermost positions.

The first is the energy-based pointing game of Wang et al. (Score-CAM, CVPR workshops 2020), on a^l of
equation (3), which is a distribution already. The second shows the trivial solution that the paper's
attention has left: to look for each label at a place of its own, where borders or padding look alike in
every image, so that z tells the label without the object.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfseg.data.labels import IGNORE_ID, LabelMap
from tfseg.inference.preprocessing import ImageFit


def attention_entry(
    attention: np.ndarray, labels: Sequence[int], truth: np.ndarray, fit: ImageFit = "pad"
) -> dict[str, Any]:
    """Measures the attention in one image.

    Args:
        attention: float `[K, h, w]` over the network's square, each map with the sum 1.
        labels: The K label ids.
        truth: uint8 `[H, W]`, label ids, 255 ignored.
        fit: How the image became the square, see `ModelConfig.image_fit`.

    Returns:
        Ready for JSON: `labels`; their `maps`; `shown`, how many rows and columns of a map show more than
        padding; and for each label, None where `truth` does not show it, `inside`, its weight on the
        label's pixels, `border`, that on the outermost rows and columns, and `area`, the label's share of the
        pixels that are not ignored.
    """
    valid, side = max(int((truth != IGNORE_ID).sum()), 1), max(truth.shape)
    cells = attention.shape[1:]
    inside, border, area = [], [], []
    for label, weights in zip(labels, attention, strict=True):
        is_object = truth == label
        known = is_object.any()
        # A position's weight lies evenly on all pixels of its cell, those in the padding among them.
        covered = covered_cells(is_object, *cells, fit) if known else None
        inside.append(float((weights * covered).sum()) if known else None)
        border.append(1.0 - float(weights[1:-1, 1:-1].sum()) if known else None)
        area.append(float(is_object.sum()) / valid if known else None)
    return {
        "labels": list(labels),
        "maps": np.round(np.asarray(attention, np.float64), 6).tolist(),
        "shown": [
            size if fit == "stretch" else math.ceil(size * length / side)
            for size, length in zip(cells, truth.shape, strict=True)
        ],
        "inside": inside,
        "border": border,
        "area": area,
    }


def mean_shares(entries: Sequence[dict[str, Any]], label_map: LabelMap) -> dict[str, Any]:
    """Averages what `attention_entry` gave of each image.

    Args:
        entries: Of all images.
        label_map: Names the labels.

    Returns:
        Ready for JSON: `by_class`, `inside` and `border` of each label by name, means over the images that
        show it; `inside` and `border`, the means of these, missing without any; and `uniform_border`, what an
        attention has that looks everywhere alike, None without any.
    """
    by_class: dict[str, dict[str, float]] = {}
    for way in ("inside", "border"):
        values: dict[int, list[float]] = {}
        for entry in entries:
            for label, value in zip(entry["labels"], entry[way], strict=True):
                if value is not None:
                    values.setdefault(label, []).append(value)
        by_class[way] = {
            label_map.label(label).name: float(np.mean(values[label])) for label in sorted(values)
        }
    means = {way: float(np.mean(list(column.values()))) for way, column in by_class.items() if column}
    size = next((np.shape(entry["maps"])[1:] for entry in entries if entry["labels"]), None)
    return {**means, "uniform_border": size and uniform_border(*size), "by_class": by_class}


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


def _cells(pixels: int, side: int, positions: int) -> np.ndarray:
    """Returns the share that each pixel fills of each of `positions` equal parts of `side`."""
    edges = np.arange(positions + 1) * (side / positions)
    pixel = np.arange(pixels)[:, None]
    overlap = np.minimum(pixel + 1, edges[1:]) - np.maximum(pixel, edges[:-1])
    return overlap.clip(0) * (positions / side)
