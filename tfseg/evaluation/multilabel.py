"""Quality of the label classifier, so that its share of the segmentation's loss is visible."""

import math
from collections.abc import Collection, Sequence

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall curve as VOC 2010 and later compute it.

    Precision at each recall is the highest one at that recall or above, and every change of recall
    counts (no eleven points). Images of equal score enter together.

    Args:
        scores: float `[N]`, one label's probability in each image.
        truth: bool `[N]`, whether the label is there.

    Returns:
        In 0 to 1; NaN when no image has the label.
    """
    truth = np.asarray(truth, bool)
    if not truth.any():
        return float("nan")
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked = np.asarray(scores)[order]
    hits = np.cumsum(truth[order])
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    hits, found = hits[last_of_ties], np.flatnonzero(last_of_ties) + 1
    recall = np.concatenate([[0.0], hits / truth.sum()])
    envelope = np.maximum.accumulate((hits / found)[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def multilabel_metrics(
    scores: np.ndarray,
    predicted: Sequence[Collection[int]],
    truth: Sequence[Collection[int]],
    labels: Sequence[int],
) -> dict[str, object]:
    """Compares predicted label sets with true ones.

    Args:
        scores: float `[N, L]`, probabilities of ids 1 to L in N images.
        predicted: Per image, the labels that were looked for: those above the threshold, else the
            most probable one.
        truth: Per image, the labels that are there.
        labels: Ids that are evaluated; predictions outside of them count as wrong.

    Returns:
        `precision`, `recall`, `f1` over all (image, label) decisions; `exact_set`, the share of
        images whose set is right; `map`, the mean of `average_precision` over labels that occur; and
        `per_label` by id: `precision`, `recall`, `average_precision`, `images`. What has no
        denominator is NaN.
    """
    predicted, truth = [set(p) for p in predicted], [set(t) for t in truth]
    hits = sum(len(p & t) for p, t in zip(predicted, truth, strict=True))
    precision = _ratio(hits, sum(map(len, predicted)))
    recall = _ratio(hits, sum(map(len, truth)))
    per_label = {}
    for label in labels:
        there = np.array([label in t for t in truth], bool)
        said = np.array([label in p for p in predicted], bool)
        column = scores[:, label - 1] if len(scores) else np.zeros(0)
        per_label[label] = {
            "precision": _ratio((there & said).sum(), said.sum()),
            "recall": _ratio((there & said).sum(), there.sum()),
            "average_precision": average_precision(column, there),
            "images": int(there.sum()),
        }
    averages = [entry["average_precision"] for entry in per_label.values()]
    known = [value for value in averages if not np.isnan(value)]
    exact = sum(p == t for p, t in zip(predicted, truth, strict=True))
    return {
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * hits, sum(map(len, predicted)) + sum(map(len, truth))),
        "exact_set": _ratio(exact, len(truth)),
        "map": float(np.mean(known)) if known else float("nan"),
        "per_label": per_label,
    }


def number_or_none(value: float) -> float | int | None:
    """Makes a number fit for JSON, which knows no NaN."""
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else float(value)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
