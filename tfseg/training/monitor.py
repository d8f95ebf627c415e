"""What a person sees of a running training: a progress bar, curves, pictures and a log of losses."""

import contextlib
import functools
import json
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg import cli
from tfseg.commands import called
from tfseg.data.bad_records import BadRecords
from tfseg.errors import InputError
from tfseg.evaluation.attention_statistics import AttentionSums, attention_statistics
from tfseg.files import json_object, read_json_lines, write_atomic
from tfseg.inference.pictures import grey, stretch
from tfseg.inference.postprocessing import from_square
from tfseg.training.data import TrainingData
from tfseg.training.stages import ATTENTION_SUMS

LOSS_LOG = "losses.jsonl"
ATTENTION_LOG = "attention.jsonl"
VALIDATION_LOG = "validation.jsonl"
_RECENT = 20  # Updates of which the last losses are the mean.


class Monitor:
    """Reports each update and stops a run whose loss is no number.

    Args:
        stage_dir: Where the loss log and TensorBoard's files go.
        start_step: Updates done before; the log keeps these and drops what a killed run wrote beyond.
        steps: Updates in all.
        batch_size: Pairs an update.
        summary_every: Updates between points of TensorBoard's curves.
        groups: Label ids by the name of their group, for the statistics of the attention.
        bad_records: Those that were skipped; their number is told at the end.
    """

    def __init__(
        self,
        stage_dir: Path,
        start_step: int,
        steps: int,
        batch_size: int,
        summary_every: int,
        groups: Mapping[str, Sequence[int]] = MappingProxyType({}),
        bad_records: BadRecords | None = None,
    ) -> None:
        self._stage_dir, self._groups, self._bad_records = stage_dir, groups, bad_records
        self._attention: AttentionSums | None = None
        self._warned: set[str] = set()
        self._attention_log = _open_log(stage_dir / ATTENTION_LOG, start_step)
        self._validation_log = _open_log(stage_dir / VALIDATION_LOG, start_step)
        self._validated: dict[str, str] = {}
        self._batch_size = batch_size
        self._summary_every = summary_every
        self._log = _open_log(stage_dir / LOSS_LOG, start_step)
        self._writer = tf.summary.create_file_writer(str(stage_dir))
        self._bar = cli.progress_bar(stage_dir.name, "update", steps, initial=start_step)
        self._begin = self._last = time.perf_counter()
        self._recent: deque[dict[str, float]] = deque(maxlen=_RECENT)

    @classmethod
    def of(cls, data: TrainingData, stage_dir: Path, start_step: int) -> "Monitor":
        """Makes the monitor that the flags of a stage ask for."""
        options = data.options
        groups = {domain: data.label_map.ids(domain) for domain in data.streams}
        every = options.batch_size, options.summary_every
        return cls(stage_dir, start_step, options.steps, *every, groups, data.bad_records)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What ended the block is told, not that a full disk takes no last lines either.
        with contextlib.suppress(OSError, tf.errors.OpError) if kind else contextlib.nullcontext():
            self.close()

    def update(self, step: int, losses: dict[str, tf.Tensor]) -> None:
        """Shows the losses of update `step`, counted from 1.

        Raises:
            InputError: If a loss is not finite.
        """
        values = {name: float(value) for name, value in losses.items() if not name.startswith(ATTENTION_SUMS)}
        self._add_attention(losses)
        now = time.perf_counter()
        speed, self._last = self._batch_size / (now - self._last), now
        self._bar.set_postfix(
            loss=f"{values['loss']:.4f}", images_s=f"{speed:.1f}", **self._validated, refresh=False
        )
        self._bar.update()
        if not math.isfinite(values["loss"]):
            raise InputError(
                f"the loss is {values['loss']} at step {step} ({values}); nothing of this update was saved. "
                f"Lower --learning_rate, or look for damaged records with {called('tfrecords.verify')}"
            )
        self._recent.append(values)
        self._log.write(json.dumps({"step": step, **values}) + "\n")
        if step % self._summary_every == 0:
            with self._writer.as_default(step=step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
                tf.summary.scalar("images_per_second", speed)
            self._show_attention(step)

    def _add_attention(self, losses: Mapping[str, tf.Tensor]) -> None:
        sums = {name: np.asarray(value) for name, value in losses.items() if name.startswith(ATTENTION_SUMS)}
        if sums:
            new = AttentionSums(**{name.removeprefix(ATTENTION_SUMS): value for name, value in sums.items()})
            self._attention = new if self._attention is None else self._attention + new

    def _show_attention(self, step: int) -> None:
        """Writes the statistics of the updates since the last point, and warns of a blind attention."""
        if self._attention is None:
            return
        entry: dict[str, Any] = {"step": step}
        for group, ids in self._groups.items():
            found = attention_statistics(self._attention, ids)
            if found is None:
                continue
            entry[group] = found.to_dict()
            with self._writer.as_default(step=step):
                for name, value in entry[group].items():
                    if isinstance(value, float):
                        tf.summary.scalar(f"attention_{group}/{name}", value)
            if found.is_fixed and group not in self._warned:
                self._bar.write(found.warning(group), file=sys.stderr)
                self._warned.add(group)
            elif not found.is_fixed:
                self._warned.discard(group)
        self._attention_log.write(json.dumps(entry) + "\n")
        self._attention = None

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Shows figures on images that are not trained on: in the bar, as curves and in a log."""
        self._validation_log.write(json.dumps({"step": step, **figures}) + "\n")
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(f"val_{name}", value)
        self._validated = {f"val_{name}": f"{value:.3f}" for name, value in figures.items()}
        self._bar.write(f"update {step}: " + ", ".join(f"{n} {v}" for n, v in self._validated.items()))

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Shows pictures, uint8 `[N, H, W, 3]` each, in TensorBoard."""
        with self._writer.as_default(step=step):
            for name, picture in pictures.items():
                tf.summary.image(name, picture, max_outputs=len(picture))

    def flush(self) -> None:
        """Brings everything to disk; called before a checkpoint, so that the log is never behind one."""
        self._log.flush()
        self._attention_log.flush()
        self._validation_log.flush()
        self._writer.flush()

    def summary(self) -> str:
        """Returns, in one line, how long this run took and the mean of its last losses."""
        if not self._recent:
            return "saved before"
        means = {name: np.mean([values[name] for values in self._recent]) for name in self._recent[0]}
        losses = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        seconds = cli.format_seconds(time.perf_counter() - self._begin)
        return f"saved after {seconds}; {losses} (mean of the last {len(self._recent)} updates)"

    def close(self) -> None:
        """Ends bar, log and curves."""
        with contextlib.ExitStack() as stack:  # All of them, though one be refused.
            for part in (self._writer, self._validation_log, self._attention_log, self._log, self._bar):
                stack.callback(part.close)
            if self._bad_records:
                print(f"{self._stage_dir}: {self._bad_records}")


def _open_log(path: Path, start_step: int):
    entries = read_json_lines(path, functools.partial(json_object, number="step"))
    kept = [entry for entry in entries if entry["step"] <= start_step]
    write_atomic(path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
    return path.open("a", buffering=1)  # A line an update, for whoever follows it.


def pictures_of(network: keras.Model, examples: dict[str, tf.Tensor], count: int = 4) -> np.ndarray:
    """Draws input, attention, densified attention and mask probability side by side.

    Both attentions are stretched to 0 to 1, whatever their sign.

    Args:
        network: A segmentation network.
        examples: A batch of `tfseg.data.batches`.
        count: How many of its examples to draw.

    Returns:
        uint8 `[count, S, 4 S, 3]`.
    """
    image, label = examples["image"][:count], examples["label"][:count]
    outputs = network({"image": image, "label": label}, training=False)
    side = image.shape[1]
    maps = (stretch(outputs[name].numpy()) for name in ("attention", "densified"))
    panels = [grey(from_square(m, side, side, "bilinear")) for m in maps]
    panels.append(grey(tf.nn.softmax(outputs["mask_logits"])[..., 1].numpy()))
    return np.concatenate([image.numpy().astype(np.uint8), *panels], axis=2)
