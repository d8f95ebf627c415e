"""Saving and restoring all that a training's next update depends on."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfseg import stopping
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.folders import remove_dead
from tfseg.model_dir import BEST, ModelDir, not_finite, save_model_dir, saved_checkpoints

# Scripts import the model directory from here, where it was once.
__all__ = ["BestCheckpoint", "ModelDir", "restore_newest", "save_model_dir", "stage_checkpoint"]

# TensorFlow's readers have many names for a file that is cut short.
_UNREADABLE = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def stage_checkpoint(
    network: keras.Model, optimizer: keras.optimizers.Optimizer, step: tf.Variable
) -> tf.train.Checkpoint:
    """Returns what a stage saves: all that its next update depends on, beside the training stream.

    Args:
        network: The network of the stage.
        optimizer: Built for its trained variables.
        step: Updates done.
    """
    # Dropout's random state is no weight, and Keras leaves it out of checkpoints.
    weights = {weight.path for weight in network.weights}
    random = [variable.value for variable in network.variables if variable.path not in weights]
    return tf.train.Checkpoint(model=network, optimizer=optimizer, step=step, random=random)


class StageCheckpoints:
    """The checkpoints of a running stage.

    ```python
    checkpoints = StageCheckpoints(network, optimizer, Path("model/joint"), keep=2)
    checkpoints.restore()
    ```

    Args:
        network: The network of the stage.
        optimizer: Built for its trained variables.
        stage_dir: Folder of the stage.
        keep: How many are kept.

    Attributes:
        step: int64 variable, updates done; the training counts it up.
        checkpoint: What is saved.
    """

    def __init__(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, stage_dir: Path, keep: int
    ) -> None:
        self._network, self._optimizer = network, optimizer
        self._stage_dir, self._keep = stage_dir, keep
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.checkpoint = stage_checkpoint(network, optimizer, self.step)

    @property
    def variables(self) -> list[tf.Variable]:
        """All that a checkpoint holds, in an order that is the same in every process."""
        variables = [*self._network.variables, *self._optimizer.variables]
        return [*(variable.value for variable in variables), self.step]

    @property
    def done(self) -> int:
        """Number of updates done."""
        return int(self.step.numpy())

    def restore(self) -> str | None:
        """Restores the newest that can be read; returns its path, None without any.

        Raises:
            InputError: If there are checkpoints, but none can be read.
        """
        for folder in (self._stage_dir, self._stage_dir / BEST):
            _remove_unfinished(folder)
        self._manager, origin = restore_newest(self.checkpoint, self._stage_dir, self._keep)
        return origin

    def save(self) -> None:
        """Saves the update that is done, unless it is saved already.

        Raises:
            InputError: If a weight is not finite.
        """
        done = self.done
        if (self._manager.latest_checkpoint or "").endswith(f"/ckpt-{done}"):
            return
        _require_finite_weights(self._network, done)
        try:
            self._manager.save(checkpoint_number=done)
        except Exception:
            if not _is_whole(f"{self._stage_dir}/ckpt-{done}"):
                for path in self._stage_dir.glob(f"ckpt-{done}.*"):
                    path.unlink(missing_ok=True)
            _remove_unfinished(self._stage_dir)
            raise

    @contextlib.contextmanager
    def saved_when_stopped(self) -> Iterator[stopping.Stop]:
        """Hears of signals while the block runs; `Stop.check` ends it with the update that is done saved."""
        with stopping.later("this update") as stop:
            try:
                yield stop
            except stopping.Stopped as stopped:
                self.save()
                stopped.add_note(f"saved at update {self.done}; the same command goes on")
                raise


def restore_newest(
    checkpoint: tf.train.Checkpoint, stage_dir: Path, keep: int
) -> tuple[tf.train.CheckpointManager, str | None]:
    """Restores the newest checkpoint of a stage that can be read; a damaged one is passed over.

    Args:
        checkpoint: What to restore.
        stage_dir: Folder of the stage.
        keep: How many checkpoints the manager keeps.

    Returns:
        The manager that saves the next ones, and what was restored, None where there is nothing.

    Raises:
        InputError: If there are checkpoints, but none can be read.
    """
    saved = saved_checkpoints(stage_dir)
    whole = list(saved)
    while whole:
        try:
            checkpoint.restore(whole[-1])
            break
        except _UNREADABLE as error:
            print(f"{whole.pop()}: passed over, it cannot be read: {str(error).splitlines()[0]}")
    if saved and not whole:
        raise InputError(
            f"{stage_dir}: none of its {len(saved)} checkpoint(s) can be read; delete it to start anew"
        )
    if whole:
        _write_list(stage_dir, whole)
    manager = tf.train.CheckpointManager(checkpoint, stage_dir, keep)
    return manager, whole[-1] if whole else None


class BestCheckpoint:
    """Keeps the checkpoint whose validation is best, in `STAGE/best`, across runs of the stage.

    ```python
    best = BestCheckpoint(stage_checkpoint(network, optimizer, step), Path("model/joint"))
    best.offer(500, "miou", 0.41)
    ```

    Args:
        checkpoint: What is saved.
        stage_dir: Folder of the stage.
    """

    def __init__(self, checkpoint: tf.train.Checkpoint, stage_dir: Path) -> None:
        self._folder = stage_dir / BEST
        self._manager = tf.train.CheckpointManager(checkpoint, self._folder, max_to_keep=1)
        self._score = _read_score(self._folder / "best.json")

    def offer(self, step: int, name: str, value: float) -> None:
        """Saves the checkpoint if `value` is the highest so far.

        Args:
            step: Updates done.
            name: Of the figure; another name starts anew.
            value: The figure; higher is better.
        """
        if self._score is not None and self._score["name"] == name and value <= self._score["value"]:
            return
        self._manager.save(checkpoint_number=step)
        self._score = {"step": step, "name": name, "value": value}
        write_atomic(self._folder / "best.json", (json.dumps(self._score) + "\n").encode())


def _remove_unfinished(folder: Path) -> None:
    """Removes what a killed process or a full disk left of a checkpoint; nobody else writes there."""
    remove_dead(folder, r"ckpt-\d+_temp", r"part-\d+-of-\d+\..*")


def _is_whole(checkpoint: str) -> bool:
    """Whether a checkpoint that was just written has its index, which is written last."""
    try:
        tf.train.load_checkpoint(checkpoint)
        return True
    except _UNREADABLE:
        return False


def _read_score(path: Path) -> dict[str, Any] | None:
    """Reads the figure of the best checkpoint; None without one, or without the checkpoint itself."""
    try:
        score = json.loads(path.read_text())
        return score if (path.parent / f"ckpt-{score['step']}.index").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_list(stage_dir: Path, saved: list[str]) -> None:
    """Writes the list of checkpoints that TensorFlow keeps; a killed run may leave it behind, or empty."""
    lines = [f'model_checkpoint_path: "{os.path.basename(saved[-1])}"']
    lines += [f'all_model_checkpoint_paths: "{os.path.basename(path)}"' for path in saved]
    lines += [f"all_model_checkpoint_timestamps: {os.path.getmtime(f'{path}.index')}" for path in saved]
    write_atomic(stage_dir / "checkpoint", "".join(f"{line}\n" for line in lines).encode())


def _require_finite_weights(network: keras.Model, step: int) -> None:
    """Stops a run before it saves weights that are no numbers; their loss would show only an update later.

    Raises:
        InputError: If a weight is not finite.
    """
    if (path := not_finite(network)) is not None:
        raise InputError(
            f"{path} is not finite after step {step}; this update was not saved. Lower --learning_rate"
        )
