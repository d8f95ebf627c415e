"""From foreground probabilities of single labels to one label map (SPEC 7, steps 4 and 7)."""

from collections.abc import Sequence

import numpy as np

BACKGROUND_FACTOR = 0.5
"""The authors halve the background's probability before they renormalise."""


def halve_background(probabilities: np.ndarray, background_factor: float = BACKGROUND_FACTOR) -> np.ndarray:
    """Weakens the background: `p' = p / (p + f (1 - p))`; for f = 1/2, `2 e1 / (e0 + 2 e1)`.

    The same as adding ln 2 to the foreground's logit: foreground wins where p > 1/3.

    Args:
        probabilities: Foreground probabilities of the two-way softmax, any shape.
        background_factor: f, above 0; 1 changes nothing.

    Returns:
        float32 of the same shape.
    """
    probabilities = np.asarray(probabilities, np.float32)
    return probabilities / (probabilities + np.float32(background_factor) * (1 - probabilities))


def merge(
    probabilities: np.ndarray, labels: Sequence[int], foreground: np.ndarray | None = None
) -> np.ndarray:
    """Gives each pixel the label that is most probable there, or background.

    With a CRF, `score_j = p_j * [CRF says foreground]`, and background where all scores are 0.
    Without one, a label competes where its foreground is more probable than its background,
    `p_j > 1/2`.

    Args:
        probabilities: float `[K, H, W]`, foreground probability of each label after the background
            was halved, before the CRF.
        labels: The K label ids.
        foreground: bool `[K, H, W]`, the CRF's decision; None to threshold instead.

    Returns:
        uint8 `[H, W]`; of equal scores the earlier label wins.
    """
    if not len(labels):
        return np.zeros(probabilities.shape[1:], np.uint8)
    if foreground is None:
        foreground = probabilities > 0.5
    scores = np.where(foreground, probabilities, 0)
    winners = np.asarray(labels, np.uint8)[scores.argmax(axis=0)]
    return np.where(scores.max(axis=0) > 0, winners, np.uint8(0))
