"""The training of one stage, from its last checkpoint if there is one, read from top to bottom."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg import cli
from tfseg.config import CLASSIFIER_STAGES, ModelConfig
from tfseg.data.bad_records import BadRecords
from tfseg.data.batches import explain_failure, training_batches
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform
from tfseg.errors import InputError
from tfseg.evaluation.masks import check_label_maps
from tfseg.model_dir import ModelDir, append_run, read_model_dir
from tfseg.training.checkpoints import BestCheckpoint, restore_newest, stage_checkpoint
from tfseg.training.monitor import Monitor, pictures_of, require_finite_weights
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.options import TrainingOptions
from tfseg.training.stages import MultiLabelStage, SegmentationStage
from tfseg.training.start import load_start_weights, measure_features
from tfseg.training.step import Batch, build_train_step
from tfseg.training.validation import Validation


def train(options: TrainingOptions) -> None:
    """Trains the stage, from its last checkpoint if there is one.

    Raises:
        InputError: If records, flags or an earlier stage do not fit, or a loss is not finite.
    """
    strategy = _strategy(options.cpu_devices)
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.dtype_policy)

    # Data: one stream of pairs a domain.
    streams = _open_streams(options)
    label_map = _common_label_map(streams, options.data_dir)

    # Network, optimizer and where they start.
    config = options.model_config(label_map.num_labels)
    bad_records = BadRecords(options.on_bad_record)
    transform = Transform(
        config.image_size,
        options.resize_to or round(config.image_size * 330 / 320),
        options.mirror,
        fit=config.image_fit,
    )
    directory = ModelDir(Path(options.model_dir), options.model, config, label_map)
    directory.refuse_other()
    stage_dir = directory.path / options.stage
    with strategy.scope():
        network = directory.build(options.stage)
        if options.stage in CLASSIFIER_STAGES:
            known = {domain: stream.split.known_labels for domain, stream in streams.items()}
            stage = MultiLabelStage(network, known, options.frozen_blocks, options.label_loss)
        else:
            stage = SegmentationStage(
                network,
                joint=options.stage == "joint",
                seg_weight=options.seg_weight,
                decode_target=options.target_masks > 0,
                mean_per_micro_batch=options.seg_mean == "micro_batch",
            )
        optimizer = AdamWithMultipliers(_multipliers(stage, options), learning_rate=options.learning_rate)
        optimizer.build(stage.trained)
        step = tf.Variable(0, dtype=tf.int64, trainable=False)
        train_step = build_train_step(
            stage,
            optimizer,
            tuple(streams),
            options.batch_size,
            options.micro_batch_size,
            options.jit_compile,
        )

        # Resume, or start from the earlier stage.
        checkpoint = stage_checkpoint(network, optimizer, step)
        manager, origin = restore_newest(checkpoint, stage_dir, options.keep_checkpoints)
        optimizer.learning_rate = options.learning_rate  # The checkpoint holds that of the earlier run.
        if origin is None:
            earlier = read_model_dir(options.init_dir) if options.init_dir else directory
            origin = load_start_weights(network, options.stage, directory, options.encoder_weights, earlier)
            if config.feature_norm == "standardize" and options.stage != "joint":
                print(f"{options.stage}: measures the encoder's features")
                first = training_batches(streams, transform, 32, options.seed, bad_records=bad_records)
                measure_features(network, first)
    directory.save()
    start = int(step.numpy())
    print(f"{options.stage}: starts at update {start} from {origin}")
    if start >= options.steps:
        print(f"{stage_dir}: already trained for {start} updates; nothing to do")
        return
    validation = _open_validation(options, network, config, label_map)  # Refuses before the run is recorded.
    append_run(
        stage_dir, start + 1, sorted(cli.flag_lines(options)), _describe_run(options, streams, network)
    )

    # The loop.
    batches = training_batches(streams, transform, options.batch_size, options.seed, start, bad_records)
    pictured = options.stage not in CLASSIFIER_STAGES
    if pictured:  # Always the same examples, so that pictures can be compared.
        first = iter(
            training_batches(streams, transform, options.batch_size, options.seed, bad_records=bad_records)
        )
        shown = _next(first, streams, options.batch_size, 0)
    groups = {domain: label_map.ids(domain) for domain in streams}
    monitor = Monitor(stage_dir, start, options.steps, options.batch_size, options.summary_every, groups)
    best = BestCheckpoint(checkpoint, stage_dir) if options.keep_best else None
    reader = iter(strategy.experimental_distribute_dataset(batches))
    print("Compiling: the first update takes longer.", flush=True)
    try:
        for done in range(start + 1, options.steps + 1):
            monitor.update(done, train_step(_next(reader, streams, options.batch_size, done - 1)))
            step.assign(done)
            if done % options.checkpoint_every == 0 or done == options.steps:
                monitor.flush()
                require_finite_weights(network, done)
                manager.save(checkpoint_number=done)
            last = done == options.steps
            if validation and (last or done % options.evaluate_every == 0):
                figures = validation.measure()
                monitor.validation(done, figures)
                if best:
                    best.offer(done, *next(iter(figures.items())))
            if pictured and (last or done % options.pictures_every == 0):
                drawn = {domain: pictures_of(network, shown[domain]) for domain in streams}
                monitor.pictures(done, drawn)
    finally:
        monitor.close()
        if bad_records:
            print(f"{stage_dir}: {bad_records}")


def _open_validation(
    options: TrainingOptions, network: keras.Model, config: ModelConfig, label_map: LabelMap
) -> Validation | None:
    if not options.val_split:
        return None
    split = Split.load(options.data_dir, options.val_split)
    check_label_maps(label_map, split)
    return Validation(network, options.stage, config, split, options.evaluate_images, options.on_bad_record)


def _multipliers(stage: MultiLabelStage | SegmentationStage, options: TrainingOptions) -> list[float]:
    """Factors on the learning rate, by variable."""
    multipliers = (
        official_multipliers(stage.trained) if options.lr_multipliers else [1.0] * len(stage.trained)
    )
    if options.stage != "joint":
        return multipliers
    slowed = {id(variable) for variable in stage.classified}
    return [
        factor * (options.attention_rate if id(variable) in slowed else 1.0)
        for factor, variable in zip(multipliers, stage.trained, strict=True)
    ]


def _strategy(cpu_devices: int) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs, the CPU, or logical parts of the CPU."""
    if not cpu_devices:
        return tf.distribute.MirroredStrategy()
    parts = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])


def _open_streams(options: TrainingOptions) -> dict[str, PairStream]:
    streams = {}
    for domain, name in (("source", options.source_split), ("target", options.target_split)):
        if not name:
            continue
        split = Split.load(options.data_dir, name)
        if split.domain != domain:
            raise InputError(f"--{domain}_split={name}: was built as {split.domain} records")
        if domain == "target":
            masks = options.target_masks
        elif options.stage == "joint":
            masks = None
        else:  # Not trained on: they tell how much of the attention lies on the object.
            masks = "available" if options.stage == "attention" else 0
        streams[domain] = PairStream(
            split,
            options.seed,
            fraction=options.source_fraction if domain == "source" else 1.0,
            subset_seed=options.subset_seed,
            masks=masks,
        )
    return streams


def _common_label_map(streams: dict[str, PairStream], data_dir: str) -> LabelMap:
    maps = [stream.split.label_map for stream in streams.values()]
    if any(other != maps[0] for other in maps):
        raise InputError(f"{data_dir}: the splits were built with different label maps; build both with one")
    return maps[0]


def _next(reader: Iterator[Batch], streams: dict[str, PairStream], batch_size: int, step: int) -> Batch:
    try:
        return next(reader)
    except tf.errors.OpError as error:
        raise explain_failure(streams, batch_size, step, error) from error


def _describe_run(
    options: TrainingOptions, streams: dict[str, PairStream], network: keras.Model
) -> dict[str, Any]:
    """Returns what the run is made with and trained on, for the record of the stage."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "parameters": network.count_params(),
        "data": {
            domain: {
                "split": stream.split.name,
                "images": len(stream.images),
                "pairs": len(stream),
                "masks": stream.num_masks,
                "fraction": options.source_fraction if domain == "source" else 1.0,
                "subset_seed": options.subset_seed,
                "sha256": stream.split.summary["sha256"],
            }
            for domain, stream in streams.items()
        },
    }
