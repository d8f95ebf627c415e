"""Reading what training and evaluation left behind; the one source of every number in a report."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from tfseg.commands import called
from tfseg.config import STAGES
from tfseg.errors import InputError
from tfseg.files import json_object, read_json_lines

# TensorFlow is imported where it is needed: tables and plots are read before flags are known to be right.

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
        raise InputError(f"{path}: {error.strerror}; {called('tfseg.evaluate')} writes it") from error
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
    from tfseg.model_dir import read_model_dir

    weights = read_model_dir(model_dir).fingerprint()
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


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One trained stage.

    Attributes:
        name: Of `tfseg.config.STAGES`.
        flags: Its flags as a flagfile; empty where unknown (imported weights).
        run: Content of `run.json`; empty where unknown.
        losses: Of its log, one an update.
        seconds: How long it trained, over all resumptions; None where unknown.
    """

    name: str
    flags: str
    run: dict[str, Any]
    losses: list[dict[str, float]]
    seconds: float | None

    @property
    def updates(self) -> int:
        """How many updates were done; 0 where unknown."""
        return int(self.losses[-1]["step"]) if self.losses else 0

    def notice(self, recipe_steps: int | None = None) -> str | None:
        """Says that the stage was trained for fewer updates than its flags or its recipe ask for.

        Args:
            recipe_steps: Updates that the recipe asks for; None where that is unknown.

        Returns:
            One sentence for people; None where the training was not shorter, or nothing is known of it.
        """
        for origin, steps in (("its recipe", recipe_steps), ("its --steps", self.flag("steps"))):
            if steps is not None and 0 < self.updates < int(steps):
                return (
                    f"Stage {self.name} was trained for {self.updates} updates; {origin} asks for {steps}. "
                    "Results may be far below those of the whole training."
                )
        return None

    def flag(self, name: str) -> str | None:
        """Returns the value of a flag as it stands in the flagfile."""
        for line in self.flags.splitlines():
            key, _, value = line.partition("=")
            if key == f"--{name}":
                return value
        return None


def read_stages(model_dir: Path) -> list[StageRun]:
    """Reads all stages that a model directory holds, in the order of training."""
    from tfseg.training.monitor import LOSS_LOG

    stages = []
    for name in STAGES:
        folder = model_dir / name
        if not folder.is_dir():
            continue
        run, flags = folder / "run.json", folder / "flags.cfg"
        stages.append(
            StageRun(
                name,
                flags.read_text() if flags.exists() else "",
                json.loads(run.read_text()) if run.exists() else {},
                read_json_lines(folder / LOSS_LOG, functools.partial(json_object, number="step")),
                trained_seconds(folder),
            )
        )
    return stages


def trained_seconds(stage_dir: Path) -> float | None:
    """Adds up the time between first and last entry of each of a stage's TensorBoard files.

    A resumed stage has several files; the pause between them does not count.
    """
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event

    total = 0.0
    files = sorted(stage_dir.glob("events.out.tfevents.*"))
    for path in files:
        times = []
        try:
            for serialized in tf.data.TFRecordDataset(str(path)):
                times.append(Event.FromString(serialized.numpy()).wall_time)
        except tf.errors.DataLossError:
            pass  # a killed run leaves its last entry unfinished
        if times:
            total += max(times) - min(times)
    return total if files else None
