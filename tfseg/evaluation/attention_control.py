"""The control that the decoder has to beat: thresholding the attention itself.

Made as strong as it can be: both maps of the paper, a^l and s^l, at many thresholds; the best one on
the evaluated split is reported, which no honest user could have chosen.
"""

from collections.abc import Sequence

import numpy as np

from tfseg.inference.pictures import stretch
from tfseg.inference.postprocessing import from_square
from tfseg.inference.preprocessing import ImageFit

MAPS = ("attention", "densified")
THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))


def threshold_maps(
    maps: np.ndarray,
    labels: Sequence[int],
    height: int,
    width: int,
    fit: ImageFit = "pad",
) -> dict[float, np.ndarray]:
    """Makes a label map of each threshold.

    Each label's map is resized to the image and stretched to 0 to 1 within it (s^l never comes near
    0, so that dividing by its maximum alone would handicap it); a pixel gets the label whose value
    is highest, if that reaches the threshold.

    Args:
        maps: float `[K, h, w]` over the network's square.
        labels: The K label ids.
        height: H of the image.
        width: W of the image.
        fit: How the image became the square, see `ModelConfig.image_fit`.

    Returns:
        uint8 `[H, W]` by threshold, one of `THRESHOLDS`.
    """
    if not len(labels):
        return {threshold: np.zeros((height, width), np.uint8) for threshold in THRESHOLDS}
    values = stretch(from_square(maps, height, width, fit=fit))
    winners = np.asarray(labels, np.uint8)[values.argmax(axis=0)]
    highest = values.max(axis=0)
    return {threshold: np.where(highest >= threshold, winners, np.uint8(0)) for threshold in THRESHOLDS}
