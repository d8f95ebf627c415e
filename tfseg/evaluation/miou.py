"""Intersection over union of PASCAL VOC: one confusion matrix over the whole split (SPEC 8)."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID

_VALUES = 256


class ConfusionMatrix:
    """Counts of (ground truth, prediction) pixels over background and some labels.

    Pixels whose ground truth is 255 are left out, whatever was predicted there. A prediction that is
    none of the labels (of the other domain, say) counts against the class that is really there and
    for no other.

    Args:
        labels: Ids of the evaluated labels; background is added.
    """

    def __init__(self, labels: Iterable[int]) -> None:
        self.classes = (BACKGROUND_ID, *sorted(set(labels) - {BACKGROUND_ID}))
        # Of all byte values, so that an image's counts are one bincount; 0.5 MB.
        self._counts = np.zeros((_VALUES, _VALUES), np.int64)

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Adds one image.

        Args:
            truth: uint8 `[H, W]`, label ids, 0 background, 255 left out.
            prediction: uint8 `[H, W]`, label ids, 0 background.

        Raises:
            ValueError: If sizes or types differ, or `truth` holds an id that is not evaluated.
        """
        self.add_counts(count_pairs(truth, prediction))

    def add_counts(self, counts: Sequence[tuple[int, int, int]]) -> None:
        """Adds what `count_pairs` gave.

        Raises:
            ValueError: If ground truth holds an id that is not evaluated.
        """
        for truth, prediction, count in counts:
            if truth not in self.classes:
                raise ValueError(f"ground truth holds {truth}, which is not among {self.classes}")
            self._counts[truth, prediction] += count

    @property
    def matrix(self) -> np.ndarray:
        """int64 `[C, C + 1]`: row truth, column prediction, the last one for all other ids."""
        rows = self._counts[list(self.classes)]
        inside = rows[:, list(self.classes)]
        return np.column_stack([inside, rows.sum(axis=1) - inside.sum(axis=1)])

    def iou(self) -> np.ndarray:
        """`TP / (TP + FP + FN)` of each class, float64 `[C]`.

        NaN for a class that is neither in the ground truth nor in the predictions of the split; the
        devkit divides 0 by 0 there.
        """
        matrix = self.matrix
        hit = np.diagonal(matrix).astype(np.float64)
        union = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - hit
        return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not NaN; NaN when all are."""
        iou = self.iou()
        seen = iou[~np.isnan(iou)]
        return float(seen.mean()) if seen.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right; NaN without any."""
        matrix = self.matrix
        total = matrix.sum()
        return float(np.trace(matrix) / total) if total else float("nan")


def count_pairs(truth: np.ndarray, prediction: np.ndarray) -> list[tuple[int, int, int]]:
    """Counts the pixels of one image by (ground truth, prediction), without ground truth 255.

    Args:
        truth: uint8 `[H, W]`.
        prediction: uint8 `[H, W]`.

    Returns:
        (truth, prediction, pixels) of all pairs that occur.

    Raises:
        ValueError: If sizes or types differ.
    """
    if truth.shape != prediction.shape or truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(
            f"masks must be uint8 of one size: {truth.dtype} {list(truth.shape)} and "
            f"{prediction.dtype} {list(prediction.shape)}"
        )
    kept = truth != IGNORE_ID
    codes = truth[kept].astype(np.int64) * _VALUES + prediction[kept]
    counts = np.bincount(codes, minlength=1)
    return [(int(c) // _VALUES, int(c) % _VALUES, int(counts[c])) for c in np.flatnonzero(counts)]
