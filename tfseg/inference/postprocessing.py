"""From a network's scores to labels and to a label map at the image's size (SPEC 7, steps 2, 4, 5, 7)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from tfseg.inference.preprocessing import ImageFit

THRESHOLD = 0.6
"""Sigmoid from which a label counts as present (SPEC 7, step 2)."""
BACKGROUND_FACTOR = 0.5
"""The authors halve the background's probability before they renormalise."""

Resampling = Literal["bilinear", "bicubic"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def predicted_labels(
    probabilities: np.ndarray, allowed: Sequence[int], threshold: float = THRESHOLD
) -> tuple[int, ...]:
    """Returns the labels whose probability reaches the threshold, else the most probable one.

    Args:
        probabilities: float `[L]`, sigmoids of the classifier for ids 1 to L.
        allowed: Ids that may be predicted.
        threshold: In 0 to 1.

    Returns:
        Ids, ascending, at least one.
    """
    allowed = np.sort(np.asarray(allowed, np.int64))
    scores = np.asarray(probabilities)[allowed - 1]
    chosen = allowed[scores >= threshold]
    if not chosen.size:
        chosen = allowed[[scores.argmax()]]
    return tuple(chosen.tolist())


def scale_background(probabilities: np.ndarray, factor: float = BACKGROUND_FACTOR) -> np.ndarray:
    """Scales the background's probability and renormalises: `p' = p / (p + f (1 - p))`.

    For f = 1/2, `2 e1 / (e0 + 2 e1)`: the same as adding ln 2 to the foreground's logit, so that foreground
    wins where p > 1/3.

    Args:
        probabilities: Foreground probabilities of the two-way softmax, any shape.
        factor: f, above 0; 1 changes nothing.

    Returns:
        float32 of the same shape.
    """
    probabilities = np.asarray(probabilities, np.float32)
    return probabilities / (probabilities + np.float32(factor) * (1 - probabilities))


def from_square(
    maps: np.ndarray,
    height: int,
    width: int,
    resampling: Resampling = "bicubic",
    fit: ImageFit = "pad",
) -> np.ndarray:
    """Brings maps over the square of `to_square` to the size of the image.

    With `pad`, maps are resized to m x m, m = max(H, W), and cropped to H x W; with `stretch`, to H x W.
    Bicubic has a = -0.5, as MATLAB's.

    Args:
        maps: float32 `[K, S, S]`: K maps over the square, of any resolution S.
        height: H of the image.
        width: W of the image.
        resampling: `bicubic`, as the authors' script, or `bilinear`. Bicubic can overshoot: clip
            probabilities.
        fit: As `to_square` made the square.

    Returns:
        float32 `[K, H, W]`.
    """
    count, size = maps.shape[:2]
    restored = np.empty((count, height, width), np.float32)
    scale = size / max(height, width)
    # Resizing only the box that the image fills is the full m x m resize, cropped: pixels beyond
    # the box still take part in the kernel.
    box = (0, 0, min(width * scale, size), min(height * scale, size)) if fit == "pad" else None
    for index, single in enumerate(np.asarray(maps, np.float32)):
        resized = Image.fromarray(single).resize((width, height), _RESAMPLING[resampling], box=box)
        restored[index] = np.asarray(resized)
    return restored


def image_probabilities(
    scores: np.ndarray,
    height: int,
    width: int,
    background_factor: float = BACKGROUND_FACTOR,
    fit: ImageFit = "pad",
) -> np.ndarray:
    """Returns the foreground of each label at the image's size: `scale_background`, then `from_square`.

    The background is scaled before the maps are resized, as the authors do: the steps do not commute.

    Args:
        scores: float32 `[K, S, S]`, the network's plain two-way softmax.
        height: H of the image.
        width: W of the image.
        background_factor: As for `scale_background`.
        fit: As `to_square` made the square.

    Returns:
        float32 `[K, H, W]`, in 0 to 1.
    """
    scaled = scale_background(scores, background_factor)
    return from_square(scaled, height, width, fit=fit).clip(0, 1)


def merge(
    probabilities: np.ndarray,
    labels: Sequence[int],
    foreground: np.ndarray | None = None,
    threshold: float = 0.5,
) -> np.ndarray:
    """Gives each pixel the label that is most probable there, or background.

    With a CRF, `score_j = p_j * [CRF says foreground]`, and background where all scores are 0.
    Without one, a label competes where its foreground is more probable than its background,
    `p_j > 1/2`, or than another threshold.

    Args:
        probabilities: float `[K, H, W]`, foreground probability of each label after `scale_background`,
            before the CRF.
        labels: The K label ids.
        foreground: bool `[K, H, W]`, the CRF's decision; None to threshold instead.
        threshold: Probability above which a label competes without a CRF.

    Returns:
        uint8 `[H, W]`; of equal scores the earlier label wins.
    """
    if not len(labels):
        return np.zeros(probabilities.shape[1:], np.uint8)
    if foreground is None:
        foreground = probabilities > threshold
    scores = np.where(foreground, probabilities, 0)
    winners = np.asarray(labels, np.uint8)[scores.argmax(axis=0)]
    return np.where(scores.max(axis=0) > 0, winners, np.uint8(0))
