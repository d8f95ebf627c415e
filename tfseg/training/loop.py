"""The training of one stage, from its last checkpoint if there is one, read from top to bottom."""

import platform
import shlex
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfseg import cli, stopping
from tfseg.commands import called
from tfseg.config import CLASSIFIER_STAGES
from tfseg.data.records import Split
from tfseg.model_dir import ModelDir, append_run, read_model_dir
from tfseg.training.adaptation import Adaptation
from tfseg.training.checkpoints import BestCheckpoint, StageCheckpoints
from tfseg.training.data import TrainingData
from tfseg.training.monitor import Monitor, pictures_of
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.options import TrainingOptions
from tfseg.training.stages import MultiLabelStage, SegmentationStage
from tfseg.training.start import load_start_weights, measure_features
from tfseg.training.step import build_train_step
from tfseg.training.validation import Validation


def train(options: TrainingOptions, adaptation: Adaptation | None = None) -> None:
    """Trains the stage, from its last checkpoint if there is one.

    Ctrl-C and SIGTERM end it after the update that is under way, saved.

    Args:
        options: What to train on what.
        adaptation: The trained network that grows by new categories; None where stages follow each other.

    Raises:
        InputError: If records, flags or an earlier stage do not fit, or a loss is not finite.
    """
    strategy = _set_up(options)
    added = adaptation and adaptation.stream(options.data_dir, options.target_split, options.seed)
    data = TrainingData.open(options, {"target": added} if added else None)
    directory = ModelDir(Path(options.model_dir), options.model, data.config, data.label_map)
    directory.refuse_other()
    stage_dir = directory.path / options.stage

    with cli.working(f"{options.stage}: building the network"), strategy.scope():
        # Network, optimizer and update.
        network = directory.build(options.stage)
        stage = _stage(network, data, adaptation)
        optimizer = _optimizer(stage, options)
        sizes = options.batch_size, options.micro_batch_size
        train_step = build_train_step(stage, optimizer, tuple(data.streams), *sizes, options.jit_compile)

        # Resume, or start from the earlier stage.
        checkpoints = StageCheckpoints(network, optimizer, stage_dir, options.keep_checkpoints)
        origin = checkpoints.restore()
        optimizer.learning_rate = options.learning_rate  # The checkpoint holds that of the earlier run.
        origin = origin or _load_start_weights(network, directory, data, adaptation)
    directory.save()
    start = checkpoints.done
    print(f"{options.stage}: starts at update {start} from {origin}")
    if start >= options.steps:
        print(f"{stage_dir}: already trained for {start} updates; nothing to do")
        return
    inspection = _Inspection(network, data, checkpoints, stage_dir)  # Refuses before the run is recorded.
    _append_run(stage_dir, start, network, data, adaptation)

    # The loop.
    reader = iter(strategy.experimental_distribute_dataset(data.batches(start)))
    print("Compiling: the first update takes longer.", flush=True)
    with checkpoints.saved_when_stopped() as stop, Monitor.of(data, stage_dir, start) as monitor:
        for done in range(start + 1, options.steps + 1):
            monitor.update(done, train_step(data.next(reader, done - 1)))
            checkpoints.step.assign(done)
            if done % options.checkpoint_every == 0 or done == options.steps:
                monitor.flush()  # The log is never behind a checkpoint.
                checkpoints.save()
            stop.check()
            inspection.after(done, monitor)
    print(_closing_line(options, monitor))


def _set_up(options: TrainingOptions) -> tf.distribute.Strategy:
    """Sets seed and precision; returns a strategy over all GPUs, the CPU, or logical parts of the CPU."""
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.dtype_policy)
    if not options.cpu_devices:
        return tf.distribute.MirroredStrategy()
    parts = [tf.config.LogicalDeviceConfiguration()] * options.cpu_devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(options.cpu_devices)])


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

    def after(self, done: int, monitor: Monitor) -> None:
        """Shows what is due after an update; a signal ends it at once, for it changes no weight."""
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
