"""Figures 2, 3, 5, 6 and 8 of the paper, drawn from our own networks."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import keras
import numpy as np

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, LabelMap
from tfseg.errors import InputError
from tfseg.inference.crf import CrfParameters, refine
from tfseg.inference.geometry import from_square, to_square
from tfseg.inference.merge import merge
from tfseg.inference.segmentation import Segmentation
from tfseg.reporting import tiles
from tfseg.reporting.examples import Example
from tfseg.reporting.sheet import Cell, sheet


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image with what networks found in it.

    Attributes:
        example: The image.
        found: By TransferNet.
        baseline: By BaselineNet, or None.
        refined: TransferNet's label map after the CRF, uint8 `[H, W]`, or None.
    """

    example: Example
    found: Segmentation
    baseline: Segmentation | None = None
    refined: np.ndarray | None = None


def attention_per_label(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 2: the attention a^l of equation (3) for each label of an image, a row an image."""
    rows = []
    for one in shown:
        row = [Cell(partial(tiles.fit_image, one.example.image), _short(one.example.name))]
        for label, attention in zip(one.found.labels, one.found.attention, strict=True):
            draw = partial(tiles.heat_tile, one.example.image, attention)
            row.append(Cell(draw, label_map.label(label).name))
        rows.append(row)
    return sheet(rows)


def densified_attention(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 3: attention a^l beside densified attention s^l of equation (7), a row a label."""
    rows, names = [], []
    for one in shown:
        image, found = one.example.image, one.found
        for label, attention, densified in zip(found.labels, found.attention, found.densified, strict=True):
            draws = [partial(tiles.heat_tile, image, m) for m in (attention, densified)]
            rows.append([Cell(draw) for draw in (partial(tiles.fit_image, image), *draws)])
            names.append(label_map.label(label).name)
    return sheet(rows, ["Input", "Attention", "Densified attention"], names)


def qualitative(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 5: input, ground truth, attention over all labels, BaselineNet, TransferNet, with CRF.

    The columns of BaselineNet and of the CRF are left out where nothing was given for them.
    """
    with_baseline = any(one.baseline is not None for one in shown)
    rows = []
    for one in shown:
        image = one.example.image
        row = [
            Cell(partial(tiles.fit_image, image)),
            Cell(partial(_truth_tile, one.example)),
            Cell(partial(tiles.heat_tile, image, aggregate(one.found.attention))),
        ]
        if with_baseline:
            row.append(Cell(partial(tiles.mask_tile, one.baseline.label_map)))
        rows.append([*row, *_our_columns(one)])
    titles = ["Input", "Ground truth", "Attention"] + ["BaselineNet"] * with_baseline + _our_titles(shown)
    return sheet(rows, titles, legend=_legend(shown, label_map))


def our_columns(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 8 as far as it is ours: TransferNet and TransferNet+CRF beside input and ground truth.

    The paper's other columns are results of EM-Adapt and CCNN, which nobody published.
    """
    rows = []
    for one in shown:
        row = [Cell(partial(tiles.fit_image, one.example.image)), Cell(partial(_truth_tile, one.example))]
        rows.append([*row, *_our_columns(one)])
    titles = ["Input", "Ground truth", *_our_titles(shown)]
    return sheet(rows, titles, legend=_legend(shown, label_map))


def gram_rows(
    shown: Sequence[Shown], model: keras.Model, pixels: Sequence[tuple[int, int]] = ()
) -> np.ndarray:
    """Figure 6: rows of the Gram matrix G = A A^T at chosen pixels, equation (10).

    A row of G is the densified attention that a one-hot attention at that position gives: where the image
    looks as it does there.

    Args:
        shown: Images.
        model: The network whose encoder gives A.
        pixels: (x, y) in each image, from 0; none: where the attention of each label is highest.

    Raises:
        InputError: If a pixel is outside of an image.
    """
    rows = []
    for one in shown:
        image = one.example.image
        chosen = list(pixels) or attention_peaks(one.found)
        _refuse_outside(chosen, one.example)
        row = [Cell(partial(tiles.fit_image, image), _short(one.example.name))]
        for (x, y), gram in zip(chosen, gram_maps(model, image, chosen), strict=True):
            # The middle of a pixel lies half a pixel from its corner.
            draw = partial(_marked_heat, image, gram, (x + 0.5, y + 0.5))
            row.append(Cell(draw, f"x {x}, y {y}"))
        rows.append(row)
    return sheet(rows)


def gram_maps(model: keras.Model, image: np.ndarray, pixels: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Returns the row of the Gram matrix at each pixel's position, float32 `[h, w]` over the padded square.

    Args:
        model: A segmentation network.
        image: uint8 `[H, W, 3]`.
        pixels: (x, y) in the image, from 0.
    """
    square = to_square(image, model.inputs[0].shape[1]).astype(np.float32)
    features = model.get_layer("encoder")(square[None], training=False)["features"]
    features = model.get_layer("attention").get_layer("conv5_3_scaled")(features)
    a = keras.ops.convert_to_numpy(features)[0].astype(np.float32)
    maps = []
    for x, y in pixels:
        column, row = (int((v + 0.5) * a.shape[0] / max(image.shape[:2])) for v in (x, y))
        maps.append(a @ a[row, column])
    return maps


def attention_peaks(found: Segmentation) -> list[tuple[int, int]]:
    """Returns the pixel (x, y) at which each label's attention is highest within the image."""
    height, width = found.image.shape[:2]
    peaks = []
    for attention in from_square(found.attention, height, width):
        y, x = np.unravel_index(attention.argmax(), attention.shape)
        peaks.append((int(x), int(y)))
    return peaks


def aggregate(attention: np.ndarray) -> np.ndarray:
    """Joins the attention of several labels, `[K, h, w]`: the maximum of each one scaled to 1."""
    if not len(attention):
        return np.zeros((1, 1), np.float32)
    return (attention / attention.max(axis=(1, 2), keepdims=True)).max(axis=0)


def refined_label_map(found: Segmentation, crf: CrfParameters) -> np.ndarray:
    """Returns a segmentation's label map after the CRF, uint8 `[H, W]`."""
    if not found.labels:
        return found.label_map
    return merge(found.probabilities, found.labels, refine(found.image, found.probabilities, crf))


def _our_columns(one: Shown) -> list[Cell]:
    maps = [one.found.label_map] + ([] if one.refined is None else [one.refined])
    return [Cell(partial(tiles.mask_tile, m)) for m in maps]


def _our_titles(shown: Sequence[Shown]) -> list[str]:
    return ["TransferNet", *(["TransferNet+CRF"] if shown[0].refined is not None else [])]


def _truth_tile(example: Example, side: int) -> np.ndarray:
    if example.truth is not None:
        return tiles.mask_tile(example.truth, side)
    return np.full((*tiles.fitted_size(*example.image.shape[:2], side), 3), 255, np.uint8)


def _refuse_outside(pixels: Sequence[tuple[int, int]], example: Example) -> None:
    height, width = example.image.shape[:2]
    for x, y in pixels:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"pixel {x}:{y} is outside of the image {example.name}, which has {width} x {height} pixels"
            )


def _marked_heat(image: np.ndarray, heatmap: np.ndarray, point: tuple[float, float], side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    heat = tiles.heat_tile(image, heatmap, side)
    return tiles.marked_tile(heat, [(point[0] * scale, point[1] * scale)], side)


def _legend(shown: Sequence[Shown], label_map: LabelMap) -> list[tuple[int, str]]:
    ids: set[int] = set()
    for one in shown:
        maps = (one.example.truth, one.found.label_map, one.refined)
        maps += () if one.baseline is None else (one.baseline.label_map,)
        ids.update(*(np.unique(m).tolist() for m in maps if m is not None))
    named = [(i, label_map.label(i).name) for i in sorted(ids - {BACKGROUND_ID, IGNORE_ID})]
    return named + ([(IGNORE_ID, "not evaluated")] if IGNORE_ID in ids else [])


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:21]}..."
