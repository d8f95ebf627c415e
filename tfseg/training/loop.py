"""The training of one stage, from its last checkpoint if there is one, read from top to bottom."""

import platform
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg import cli, stopping
from tfseg.commands import called
from tfseg.config import CLASSIFIER_STAGES
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.files import read_json_lines
from tfseg.model_dir import ModelDir, append_run, read_model_dir
from tfseg.training.adaptation import Adaptation
from tfseg.training.checkpoints import BestCheckpoint, StageCheckpoints
from tfseg.training.cluster import Cluster
from tfseg.training.data import TrainingData
from tfseg.training.monitor import VALIDATION_LOG, Monitor, pictures_of
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.options import TrainingOptions
from tfseg.training.stages import MultiLabelStage, SegmentationStage
from tfseg.training.start import load_start_weights, measure_features
from tfseg.training.step import Batch, build_train_step
from tfseg.training.validation import Validation
from tfseg.training.workers import Workers

Losses = dict[str, tf.Tensor]


def train(
    options: TrainingOptions, adaptation: Adaptation | None = None, *, cluster: Cluster | None = None
) -> None:
    """Trains the stage, from its last checkpoint if there is one.

    Ctrl-C and SIGTERM end it after the update that is under way, saved.

    Args:
        options: What to train on what.
        adaptation: The trained network that grows by new categories; None where stages follow each other.
        cluster: The processes that train together, from `read_cluster`; None for this one alone.

    Raises:
        InputError: If records, flags or an earlier stage do not fit, or a loss is not finite.
        WorkerLostError: If a process that this one trains with has ended.
    """
    workers = Workers(cluster, options.cpu_devices)
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.dtype_policy)
    with workers.together():
        _train(options, adaptation, workers)


def _train(options: TrainingOptions, adaptation: Adaptation | None, workers: Workers) -> None:
    added = adaptation and adaptation.stream(options.data_dir, options.target_split, options.seed)
    data = TrainingData.open(options, {"target": added} if added else None)
    workers.require_same(_common_to_all(data))
    directory = ModelDir(Path(options.model_dir), options.model, data.config, data.label_map)
    directory.refuse_other()
    stage_dir = directory.path / options.stage

    # Network, optimizer and update.
    with cli.working(f"{options.stage}: building the network"), workers.strategy.scope():
        network = directory.build(options.stage)
        stage = _stage(network, data, adaptation)
        optimizer = _optimizer(stage, options)
        sizes = options.batch_size, options.micro_batch_size
        train_step = build_train_step(stage, optimizer, tuple(data.streams), *sizes, options.jit_compile)
        checkpoints = StageCheckpoints(network, optimizer, stage_dir, options.keep_checkpoints)

    # Resume, or start from the earlier stage.
    if workers.is_chief:
        origin = checkpoints.restore() or _load_start_weights(network, directory, data, adaptation)
        directory.save()
        print(f"{options.stage}: starts at update {checkpoints.done} from {origin}")
    workers.share(checkpoints.variables)
    optimizer.learning_rate = options.learning_rate  # The checkpoint holds that of the earlier run.
    start = checkpoints.done
    unvalidated = workers.is_chief and _is_unvalidated(options, stage_dir, start)
    if start >= options.steps and not unvalidated:
        if workers.is_chief:
            print(f"{stage_dir}: already trained for {start} updates; nothing to do")
        return

    # The loop.
    updates = _updates(data, workers, train_step, checkpoints.step)
    if not workers.is_chief:
        _follow(updates, workers, data)
        return
    inspection = _Inspection(network, data, checkpoints, stage_dir)  # Refuses before the run is recorded.
    _append_run(stage_dir, start, network, data, adaptation)
    print("Compiling: the first update takes longer.", flush=True)
    with checkpoints.saved_when_stopped() as stop, Monitor.of(data, stage_dir, start) as monitor:
        if unvalidated:
            inspection.after(start, monitor, stop)
        for done, losses in updates:
            monitor.update(done, losses)
            if done % options.checkpoint_every == 0 or done == options.steps:
                monitor.flush()  # The log is never behind a checkpoint.
                checkpoints.save()
            inspection.after(done, monitor, stop)
            workers.check(stop)
    print(_closing_line(options, monitor))


def _updates(
    data: TrainingData, workers: Workers, train_step: Callable[[Batch], Losses], step: tf.Variable
) -> Iterator[tuple[int, Losses]]:
    """Computes the updates that are left; yields the number of each, from 1, and its losses."""
    start = int(step.numpy())
    reader = data.reader(workers.strategy, start)
    for done in range(start + 1, data.options.steps + 1):
        losses = train_step(data.next(reader, done - 1))
        step.assign(done)
        yield done, losses


def _follow(updates: Iterator[tuple[int, Losses]], workers: Workers, data: TrainingData) -> None:
    """Takes part in the updates, and leaves all else to the chief."""
    with stopping.later("this update") as stop:
        for _ in updates:
            workers.check(stop)
    if data.bad_records:
        print(f"{workers.name}: {data.bad_records}")


def _common_to_all(data: TrainingData) -> dict[str, Any]:
    """Returns what must be the same in all processes, by its name."""
    own = {"data_dir", "model_dir", "init_dir"}  # Machines may see them under other paths.
    flags = {name: value for name, value in cli.given_values(data.options).items() if name not in own}
    versions = tf.__version__, keras.__version__
    return {"flags": flags, "records": data.description(), "versions of TensorFlow or Keras": versions}


def _stage(
    network: keras.Model, data: TrainingData, adaptation: Adaptation | None
) -> MultiLabelStage | SegmentationStage:
    options = data.options
    first_label = adaptation.first_label(options.stage) if adaptation else 1
    if options.stage in CLASSIFIER_STAGES:
        known = {domain: stream.split.known_labels for domain, stream in data.streams.items()}
        return MultiLabelStage(network, known, options.frozen_blocks, options.label_loss, first_label)
    return SegmentationStage(
        network,
        joint=options.stage == "joint" and adaptation is None,
        seg_weight=options.seg_weight,
        decode_target=options.target_masks > 0,
        mean_per_micro_batch=options.seg_mean == "micro_batch",
        first_label=first_label,
        num_old=adaptation.old.label_map.num_labels if adaptation else 0,
    )


def _optimizer(
    stage: MultiLabelStage | SegmentationStage, options: TrainingOptions
) -> keras.optimizers.Optimizer:
    """Builds Adam for the trained variables, with the factors on their learning rates."""
    factors = official_multipliers(stage.trained) if options.lr_multipliers else [1.0] * len(stage.trained)
    if options.stage == "joint":
        slowed = {id(variable) for variable in stage.classified}
        factors = [
            factor * (options.attention_rate if id(variable) in slowed else 1.0)
            for factor, variable in zip(factors, stage.trained, strict=True)
        ]
    optimizer = AdamWithMultipliers(factors, learning_rate=options.learning_rate)
    if options.dtype_policy == "mixed_float16":
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:  # Each would scale for itself.
            raise InputError(
                "--dtype_policy=mixed_float16: trains on one device; several take float32 or mixed_bfloat16"
            )
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(stage.trained)
    return optimizer


def _load_start_weights(
    network: keras.Model, directory: ModelDir, data: TrainingData, adaptation: Adaptation | None
) -> str:
    """Loads what the stage starts from; returns what that was."""
    options = data.options
    if adaptation:
        return adaptation.load(network, options.stage)
    earlier = read_model_dir(options.init_dir) if options.init_dir else directory
    origin = load_start_weights(network, options.stage, directory, options.encoder_weights, earlier)
    if data.config.feature_norm == "standardize" and options.stage != "joint":
        print(f"{options.stage}: measures the encoder's features")
        measure_features(network, data.batches(batch_size=32))
    return origin


class _Inspection:
    """What is looked at every so many updates and after the last: validation, best checkpoint, pictures."""

    def __init__(
        self, network: keras.Model, data: TrainingData, checkpoints: StageCheckpoints, stage_dir: Path
    ) -> None:
        options = self._options = data.options
        self._network, self._validation, self._shown = network, None, {}
        if options.val_split:
            split = Split.load(options.data_dir, options.val_split)
            split.require_labels(data.label_map)
            sizes = options.evaluate_images, options.on_bad_record
            self._validation = Validation(network, options.stage, data.config, split, *sizes)
        self._best = BestCheckpoint(checkpoints.checkpoint, stage_dir) if options.keep_best else None
        if options.stage not in CLASSIFIER_STAGES:  # Always the same examples, so that they can be compared.
            self._shown = data.next(iter(data.batches()), 0)

    def after(self, done: int, monitor: Monitor, stop: stopping.Stop) -> None:
        """Shows what is due after an update; a signal ends it at once, for it changes no weight."""
        if stop.signal is not None:
            return
        try:
            self._show(done, monitor)
        except stopping.Stopped as stopped:
            stop.signal = stopped.signal

    def _show(self, done: int, monitor: Monitor) -> None:
        options, last = self._options, done == self._options.steps
        if self._validation and (last or done % options.evaluate_every == 0):
            with stopping.at_once():
                figures = self._validation.measure()
            monitor.validation(done, figures)
            if self._best:
                self._best.offer(done, *next(iter(figures.items())))
        if self._shown and (last or done % options.pictures_every == 0):
            drawn = {domain: pictures_of(self._network, shown) for domain, shown in self._shown.items()}
            monitor.pictures(done, drawn)


def _is_unvalidated(options: TrainingOptions, stage_dir: Path, done: int) -> bool:
    """Whether a stop kept the figures that are due after the update that is done from being measured."""
    if not options.val_split or not done or (done != options.steps and done % options.evaluate_every):
        return False
    return all(entry.get("step") != done for entry in read_json_lines(stage_dir / VALIDATION_LOG))


def _append_run(
    stage_dir: Path, start: int, network: keras.Model, data: TrainingData, adaptation: Adaptation | None
) -> None:
    """Records what the run is made with and trained on, before its first update."""
    flags = sorted(cli.flag_lines(data.options))
    run = {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "parameters": network.count_params(),
        "data": data.description(),
    }
    if adaptation:
        flags, run = adaptation.flags, run | adaptation.describe(data.options.stage)
    append_run(stage_dir, start + 1, flags, run)


def _closing_line(options: TrainingOptions, monitor: Monitor) -> str:
    """Returns where the stage lies, how long it took, its last losses and what comes next."""
    own = f"--model_dir={shlex.quote(options.model_dir)} --data_dir={shlex.quote(options.data_dir)}"
    following = {
        "encoder": "--stage=attention --encoder_weights=finetuned, with these flags or its recipe",
        "classifier": f"{called('tfseg.evaluate')} {own} --method=labels",
        "attention": "--stage=joint, with these flags or its recipe",
        "joint": f"{called('tfseg.evaluate')} {own}",
    }
    return f"{Path(options.model_dir) / options.stage}: {monitor.summary()}; next: {following[options.stage]}"
