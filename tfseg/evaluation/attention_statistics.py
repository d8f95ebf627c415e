"""Does the attention look at the image? Statistics that tell the paper's attention from its trivial solution.

Nothing in equation (6) forbids an attention that looks, for each label, at a place of its own whatever the
image shows: z is then nearly constant, and tells the classification which label was asked for. Losses fall,
masks are worthless. It shows in the maps: those of one label are alike in all images, and their peak stays.

The sums here add up over images, micro-batches and replicas. Training takes them from its own batches,
evaluation from a split.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfseg.evaluation.attention_shares import uniform_border

# A label with fewer images says nothing on whether its attention moves.
_FEWEST_IMAGES = 4
# Fixed: the peak of a label is the same in nine of ten images, and weighs ten times a uniform attention.
FIXED_SHARE = 0.9
FIXED_WEIGHT = 10.0
_FEWEST_PAIRS = 20


@dataclasses.dataclass
class AttentionSums:
    """Sums over (image, label) pairs; arrays are indexed by label id minus 1.

    Attributes:
        maps: float `[L, h, w]`, sum of the attention maps of a label, each of which sums to 1.
        squares: float `[L]`, sum of the squared weights.
        peaks: float `[L, h, w]`, how often a position had the largest weight.
        entropy: float `[L]`, sum of the maps' entropies, in nats.
        padding: float `[L]`, sum of the weights on positions that show padding alone.
        masked: float `[L]`, number of the pairs whose mask is known.
        inside: float `[L]`, sum over these of the weight on the label's pixels.
        area: float `[L]`, sum over these of the label's share of the pixels.
    """

    maps: np.ndarray
    squares: np.ndarray
    peaks: np.ndarray
    entropy: np.ndarray
    padding: np.ndarray
    masked: np.ndarray
    inside: np.ndarray
    area: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """Number of pairs of each label, float `[L]`."""
        return self.peaks.sum(axis=(1, 2))

    def __add__(self, other: "AttentionSums") -> "AttentionSums":
        """Joins two disjoint sets of pairs."""
        names = [field.name for field in dataclasses.fields(self)]
        return AttentionSums(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
    """What `AttentionSums` say of a group of labels; shares are in 0 to 1, None where nothing tells.

    Attributes:
        pairs: Number of (image, label) pairs.
        image_share: Share of the attention's variance that comes from the image: the variance between images
            of one label over its sum with the variance between labels (one-way analysis of variance).
        inside: Weight on the object.
        area: The object's share of the image, what a uniform attention would have inside.
        padding: Weight on padding.
        border: Weight on the outermost rows and columns.
        uniform_border: What a uniform attention would have there.
        positions: `exp(entropy)`, the number of positions that the attention spreads over.
        same_position: How often, over the images of a label, the most attended position is the same one.
        position: The position `(row, column)` that is most often the most attended.
        position_weight: Mean weight of a label's map at the label's own most frequent position.
        uniform_weight: Weight of a position if all weighed the same.
    """

    pairs: int
    image_share: float | None
    inside: float | None
    area: float | None
    padding: float
    border: float
    uniform_border: float
    positions: float
    same_position: float | None
    position: tuple[int, int]
    position_weight: float
    uniform_weight: float

    @property
    def is_fixed(self) -> bool:
        """Whether the attention looks at fixed places, whatever the images show."""
        return (
            self.pairs >= _FEWEST_PAIRS
            and self.same_position is not None
            and self.same_position >= FIXED_SHARE
            and self.position_weight >= FIXED_WEIGHT * self.uniform_weight
        )

    def to_dict(self) -> dict[str, Any]:
        """The statistics by name, ready for JSON."""
        return dataclasses.asdict(self)

    def warning(self, group: str) -> str:
        """One line for the console."""
        return (
            f"warning: attention of {group} labels looks at the same position in "
            f"{100 * self.same_position:.0f} % of the images of a label, whatever they show (most often "
            f"row {self.position[0]}, column {self.position[1]}; weight {self.position_weight:.2f}): masks "
            "will be worthless, see docs/photographs.md"
        )


def sums_of_maps(
    attention: np.ndarray,
    labels: Sequence[int],
    num_labels: int,
    inside: Sequence[float | None],
    area: Sequence[float | None],
    padding: np.ndarray,
) -> AttentionSums:
    """Returns the sums of some pairs.

    Args:
        attention: float `[K, h, w]`, each map with the sum 1.
        labels: The K label ids, 1 to L.
        num_labels: L.
        inside: Weight on the object of each pair; None where it is not known.
        area: The object's share of the image.
        padding: bool `[h, w]`, or `[K, h, w]`, the positions that show padding alone.
    """
    attention = np.asarray(attention, np.float64)
    count, height, width = attention.shape
    rows = np.asarray(labels, int) - 1
    peak = np.zeros((count, height * width))
    peak[np.arange(count), attention.reshape(count, -1).argmax(axis=1)] = 1
    known = np.array([value is not None for value in inside], float)
    logs = np.log(np.maximum(attention, 1e-30))

    def by_label(values: np.ndarray) -> np.ndarray:
        summed = np.zeros((num_labels, *values.shape[1:]))
        np.add.at(summed, rows, values)
        return summed

    return AttentionSums(
        maps=by_label(attention),
        squares=by_label((attention**2).sum(axis=(1, 2))),
        peaks=by_label(peak.reshape(attention.shape)),
        entropy=by_label(-(attention * logs).sum(axis=(1, 2))),
        padding=by_label((attention * padding).sum(axis=(1, 2))),
        masked=by_label(known),
        inside=by_label(np.array([value or 0.0 for value in inside], float)),
        area=by_label(np.array([value or 0.0 for value in area], float)),
    )


def statistics_of_entries(
    entries: Sequence[dict[str, Any]], num_labels: int, ids: Iterable[int]
) -> AttentionStatistics | None:
    """Returns the statistics of evaluated images, from what `attention_entry` gave of each.

    Args:
        entries: One an image.
        num_labels: L.
        ids: Label ids of the group.
    """
    total: AttentionSums | None = None
    for entry in entries:
        maps = np.array(entry["maps"])
        padding = np.ones(maps.shape[1:], bool)
        padding[: entry["shown"][0], : entry["shown"][1]] = False
        sums = sums_of_maps(maps, entry["labels"], num_labels, entry["inside"], entry["area"], padding)
        total = sums if total is None else total + sums
    return None if total is None else attention_statistics(total, ids)


def attention_statistics(sums: AttentionSums, ids: Iterable[int]) -> AttentionStatistics | None:
    """Returns the statistics of a group of labels, None without a pair of any.

    Args:
        sums: Over all pairs.
        ids: Label ids of the group.
    """
    rows = np.array([label - 1 for label in ids], int)
    counts = sums.pairs[rows]
    total = counts.sum()
    if not total:
        return None
    maps, peaks = sums.maps[rows], sums.peaks[rows]
    height, width = maps.shape[1:]
    mean = maps.sum(axis=0) / total
    masked = sums.masked[rows].sum()
    often = counts >= _FEWEST_IMAGES
    same = peaks[often].max(axis=(1, 2)).sum() / counts[often].sum() if often.any() else None
    # Of each label its own most frequent peak, and the weight there.
    shown = counts > 0
    favourite = peaks[shown].reshape(shown.sum(), -1).argmax(axis=1)
    weights = maps[shown].reshape(shown.sum(), -1)[np.arange(shown.sum()), favourite]
    place = divmod(int(peaks.sum(axis=0).argmax()), width)
    return AttentionStatistics(
        pairs=int(total),
        image_share=_image_share(maps, sums.squares[rows], counts),
        inside=float(sums.inside[rows].sum() / masked) if masked else None,
        area=float(sums.area[rows].sum() / masked) if masked else None,
        padding=float(sums.padding[rows].sum() / total),
        border=1.0 - float(mean[1:-1, 1:-1].sum()),
        uniform_border=uniform_border(height, width),
        positions=math.exp(sums.entropy[rows].sum() / total),
        same_position=None if same is None else float(same),
        position=place,
        position_weight=float(weights.sum() / total),
        uniform_weight=1.0 / (height * width),
    )


def _image_share(maps: np.ndarray, squares: np.ndarray, counts: np.ndarray) -> float | None:
    """Variance between images of one label over all variance, from a one-way analysis of variance."""
    shown = counts > 0
    maps, squares, counts = maps[shown].reshape(shown.sum(), -1), squares[shown], counts[shown]
    total, labels = counts.sum(), len(counts)
    if total <= labels:
        return None
    of_label = (maps**2).sum(axis=1) / counts
    within = max(squares.sum() - of_label.sum(), 0.0) / (total - labels)
    if labels == 1:
        return None
    between = (of_label.sum() - (maps.sum(axis=0) ** 2).sum() / total) / (labels - 1)
    size = (total - (counts**2).sum() / total) / (labels - 1)
    variance = max(between - within, 0.0) / size
    return float(within / (within + variance)) if within + variance > 0 else None
