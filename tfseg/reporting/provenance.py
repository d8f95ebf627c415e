"""What a model directory tells of its making: flags, versions, data, losses and hours."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event

from tfseg.config import STAGES
from tfseg.training.monitor import LOSS_LOG, read_losses


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One trained stage.

    Attributes:
        name: Of `tfseg.config.STAGES`.
        flags: Its flags as a flagfile; empty where unknown (imported weights).
        run: Content of `run.json`; empty where unknown.
        losses: From `read_losses`.
        seconds: How long it trained, over all resumptions; None where unknown.
    """

    name: str
    flags: str
    run: dict[str, Any]
    losses: list[dict[str, float]]
    seconds: float | None

    def flag(self, name: str) -> str | None:
        """Returns the value of a flag as it stands in the flagfile."""
        for line in self.flags.splitlines():
            key, _, value = line.partition("=")
            if key == f"--{name}":
                return value
        return None


def read_stages(model_dir: Path) -> list[StageRun]:
    """Reads all stages that a model directory holds, in the order of training."""
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
                read_losses(folder / LOSS_LOG),
                trained_seconds(folder),
            )
        )
    return stages


def trained_seconds(stage_dir: Path) -> float | None:
    """Adds up the time between first and last entry of each of a stage's TensorBoard files.

    A resumed stage has several files; the pause between them does not count.
    """
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
