"""Which labels an image is asked for: predicted by the classifier, or named by a person."""

import difflib
import operator
from collections.abc import Iterable, Sequence

import numpy as np

from tfseg.data.labels import LabelMap
from tfseg.errors import InputError

THRESHOLD = 0.6
"""Sigmoid from which a label counts as present (SPEC 7, step 2)."""
DOMAINS = ("target", "source", "all")


def domain_ids(label_map: LabelMap, domain: str = "target") -> tuple[int, ...]:
    """Returns the ids of a domain.

    Args:
        label_map: All categories.
        domain: `target`, `source` or `all`.

    Raises:
        InputError: If there is no such domain, or it has no label.
    """
    if domain not in DOMAINS:
        raise InputError(f"label domain {domain!r}: allowed are {', '.join(DOMAINS)}")
    ids = tuple(label.id for label in label_map.labels if domain == "all" or label.domain == domain)
    if not ids:
        raise InputError(f"label domain {domain!r}: {label_map.name} has no label of it")
    return ids


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


def resolve_labels(label_map: LabelMap, labels: Iterable[int | str] | int | str) -> tuple[int, ...]:
    """Turns ids, names and aliases into ids, in the given order, each once.

    Args:
        label_map: All categories.
        labels: Ids or names; one alone may stand without a list.

    Raises:
        InputError: If one is unknown; the message lists those that are allowed.
    """
    if isinstance(labels, (str, int, np.integer)):
        labels = [labels]
    return tuple(dict.fromkeys(_resolve(label_map, label) for label in labels))


def _resolve(label_map: LabelMap, label: int | str) -> int:
    if isinstance(label, str):
        found = label_map.find(label)
        if found is not None:
            return found.id
        if not label.isdecimal():
            raise InputError(_unknown(label_map, label))
        label = int(label)
    try:
        label_id = operator.index(label)
    except TypeError as error:
        raise InputError(_unknown(label_map, label)) from error
    if not 1 <= label_id <= label_map.num_labels:
        raise InputError(_unknown(label_map, label))
    return label_id


def _unknown(label_map: LabelMap, label: object) -> str:
    names = [entry.name for entry in label_map.labels]
    close = difflib.get_close_matches(str(label), names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"label {label!r} is not in {label_map.name}{hint}; "
        f"allowed are the ids 1 to {label_map.num_labels} and the names {', '.join(names)}"
    )
