"""Reading what `tfseg.evaluate` measured; the one source of every number in a report."""

import json
from pathlib import Path
from typing import Any

from tfseg.errors import InputError
from tfseg.evaluation.progress import model_fingerprint

KINDS = {
    "ground_truth": "decoder, ground-truth labels",
    "predicted": "decoder, predicted labels",
    "attention": "thresholded attention, ground-truth labels",
}
"""Folders of a report's evaluations, and what each of them measures."""
_EXPECTED = {
    "ground_truth": {"labels": "ground_truth", "method": "decoder"},
    "predicted": {"labels": "predicted", "method": "decoder"},
    "attention": {"labels": "ground_truth", "method": "attention"},
}


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads a `metrics.json`.

    Raises:
        InputError: If it is not there or is not what `tfseg.evaluate` writes.
    """
    try:
        metrics = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; python -m tfseg.evaluate writes it") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    missing = {"miou", "iou", "labels", "method", "split", "command", "weights"} - set(metrics)
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; is it from tfseg.evaluate?")
    return metrics


def read_evaluations(folder: Path, model_dir: Path, split: str) -> dict[str, dict[str, Any]]:
    """Reads the three evaluations of a report and holds them to the model that is reported on.

    Args:
        folder: Holds `ground_truth/`, `predicted/` and `attention/`, each with a `metrics.json`.
        model_dir: The model.
        split: The evaluated split.

    Returns:
        Metrics by kind, in the order of `KINDS`.

    Raises:
        InputError: If one is missing, or measured something else.
    """
    weights = model_fingerprint(model_dir)
    evaluations = {}
    for kind in KINDS:
        path = folder / kind / "metrics.json"
        metrics = evaluations[kind] = read_metrics(path)
        for name, value in {**_EXPECTED[kind], "split": split}.items():
            if metrics[name] != value:
                raise InputError(f"{path}: has {name}={metrics[name]!r}, needed is {value!r}")
        if _that_matter(metrics["weights"] or {}, kind) != _that_matter(weights, kind):
            raise InputError(
                f"{path}: measured other weights than {model_dir} holds now; evaluate again: "
                f"{metrics['command']}"
            )
    return evaluations


def per_class(evaluations: dict[str, dict[str, Any]]) -> list[tuple[str, list[float | None]]]:
    """Returns (class, IoU in each evaluation), and the means as the last entry."""
    names = next(iter(evaluations.values()))["iou"]
    rows = [(name, [e["iou"].get(name) for e in evaluations.values()]) for name in names]
    return [*rows, ("mean (mIoU)", [e["miou"] for e in evaluations.values()])]


def _that_matter(weights: dict[str, str], kind: str) -> dict[str, str]:
    """Leaves out the classifier's weights where it was not asked."""
    skipped = "" if kind == "predicted" else "classifier/"
    return {name: value for name, value in weights.items() if not skipped or not name.startswith(skipped)}
