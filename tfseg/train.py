"""Trains one stage of a network from records: python -m tfseg.train --flagfile=configs/RECIPE.cfg."""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from tfseg import cli
from tfseg.config import ModelConfig, preset
from tfseg.data.batches import explain_failure, training_batches
from tfseg.data.records import Split
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.models import BUILDERS
from tfseg.training.checkpoints import ModelDir, read_model_dir, restore_newest, stage_checkpoint
from tfseg.training.monitor import Monitor, pictures_of, require_finite_weights
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.stages import (
    CLASSIFIER_STAGES,
    STAGES,
    MultiLabelStage,
    SegmentationStage,
)
from tfseg.training.start import load_start_weights
from tfseg.training.step import build_train_step

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Directory of the records.", required=True)
flags.DEFINE_string("model_dir", None, "Directory of the model; each stage gets a folder.", required=True)
flags.DEFINE_enum("stage", None, STAGES, "What to train.", required=True)
flags.DEFINE_enum("model", "transfernet", list(BUILDERS), "Segmentation network.")
flags.DEFINE_enum("preset", "official", ["official", "paper", "tiny"], "Shape of the network.")
flags.DEFINE_string("source_split", "source_train", "Records with masks; empty for none.")
flags.DEFINE_string("target_split", "target_train", "Records with image labels only; empty for none.")
flags.DEFINE_integer("steps", 15000, "Updates of the stage in all.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Pairs of an update, half of each domain.", lower_bound=1)
flags.DEFINE_integer(
    "micro_batch_size", 0, "Pairs computed at once on a device; 0: its whole share.", lower_bound=0
)
flags.DEFINE_float("learning_rate", 5e-4, "Adam's step size, fixed over the stage.", lower_bound=0.0)
flags.DEFINE_boolean("lr_multipliers", True, "The authors' factors: biases x2, class score x10.")
flags.DEFINE_float("seg_weight", 1.0, "lambda of equation (9), on the mean over source pairs.", 0.0)
flags.DEFINE_enum(
    "seg_mean", "global", ["global", "micro_batch"], "What the segmentation loss is averaged over."
)
flags.DEFINE_integer("seed", 0, "Seed of weights, shuffling, crops and mirroring.", lower_bound=0)
flags.DEFINE_string(
    "encoder_weights",
    "imagenet",
    "Where the encoder starts: imagenet (Keras downloads it), the path of VGG-16's _notop.h5 file, "
    "none, or finetuned (stage encoder of --init_dir).",
)
flags.DEFINE_string("init_dir", None, "Model directory of the earlier stages [default: model_dir].")
flags.DEFINE_integer("resize_to", None, "Side before the random crop, pixels [330/320 of the image size].")
flags.DEFINE_boolean("mirror", True, "Mirror half of the examples.")
flags.DEFINE_float("source_fraction", 1.0, "Share of the source images to train on, in (0, 1].")
flags.DEFINE_integer("subset_seed", 0, "Seed that chooses those images, and those of --target_masks.")
flags.DEFINE_integer("target_masks", 0, "Target images whose masks are used, too.", lower_bound=0)
flags.DEFINE_integer("image_size", None, "Overrides the preset.")
flags.DEFINE_enum(
    "encoder_padding", None, ["zero", "symmetric"], "Overrides the preset (zero, as VGG; tiny: symmetric)."
)
flags.DEFINE_float("feature_scale", None, "Overrides the preset (official: 0.004, the paper names none).")
flags.DEFINE_boolean("combined_embed", None, "Overrides the preset: the code's extra layer before W_att.")
flags.DEFINE_enum("gating", None, ["multiplicative", "additive", "concat"], "Overrides the preset.")
flags.DEFINE_enum("decoder_input", None, ["densified", "attention"], "Overrides the preset.")
flags.DEFINE_boolean("joint_gradient", None, "Overrides the preset: (8) reaches the attention.")
flags.DEFINE_enum(
    "decoder_init", None, ["gaussian", "he"], "Overrides the preset: initial weights of the decoder."
)
flags.DEFINE_integer("checkpoint_every", 1000, "Updates between checkpoints.", lower_bound=1)
flags.DEFINE_integer("keep_checkpoints", 2, "Newest checkpoints to keep.", lower_bound=1)
flags.DEFINE_integer("summary_every", 20, "Updates between points of the curves.", lower_bound=1)
flags.DEFINE_integer("pictures_every", 500, "Updates between pictures.", lower_bound=1)
flags.DEFINE_enum("dtype_policy", "float32", ["float32", "mixed_bfloat16"], "Precision of layers.")
flags.DEFINE_boolean("jit_compile", False, "Compile the computation of a micro-batch by XLA.")
flags.DEFINE_integer("cpu_devices", 0, "Split the CPU into so many logical devices; 0: leave it.", 0)

_CONFIG_FLAGS = (
    "image_size", "encoder_padding", "feature_scale", "combined_embed", "gating", "decoder_input",
    "joint_gradient", "decoder_init",
)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Trains the stage, from its last checkpoint if there is one."""
    del argv
    strategy = _strategy(FLAGS.cpu_devices)
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype_policy)

    # Data: one stream of pairs a domain.
    streams = _open_streams()
    label_map = _common_label_map(streams)

    # Network, optimizer and where they start.
    config = model_config(label_map.num_labels)
    directory = ModelDir(Path(FLAGS.model_dir), FLAGS.model, config, label_map)
    directory.refuse_other()
    stage_dir = directory.path / FLAGS.stage
    with strategy.scope():
        network = directory.build(FLAGS.stage)
        if FLAGS.stage in CLASSIFIER_STAGES:
            stage = MultiLabelStage(network, {d: stream.split.known_labels for d, stream in streams.items()})
        else:
            stage = SegmentationStage(
                network,
                joint=FLAGS.stage == "joint",
                seg_weight=FLAGS.seg_weight,
                decode_target=FLAGS.target_masks > 0,
                mean_per_micro_batch=FLAGS.seg_mean == "micro_batch",
            )
        ones = [1.0] * len(stage.trained)
        optimizer = AdamWithMultipliers(
            official_multipliers(stage.trained) if FLAGS.lr_multipliers else ones,
            learning_rate=FLAGS.learning_rate,
        )
        optimizer.build(stage.trained)
        step = tf.Variable(0, dtype=tf.int64, trainable=False)
        train_step = build_train_step(
            stage,
            optimizer,
            tuple(streams),
            FLAGS.batch_size,
            FLAGS.micro_batch_size,
            FLAGS.jit_compile,
        )

        # Resume, or start from the earlier stage.
        checkpoint = stage_checkpoint(network, optimizer, step)
        manager, origin = restore_newest(checkpoint, stage_dir, FLAGS.keep_checkpoints)
        optimizer.learning_rate = FLAGS.learning_rate  # The checkpoint holds that of the earlier run.
        if origin is None:
            earlier = read_model_dir(FLAGS.init_dir) if FLAGS.init_dir else directory
            origin = load_start_weights(network, FLAGS.stage, directory, FLAGS.encoder_weights, earlier)
    directory.save()
    start = int(step.numpy())
    print(f"{FLAGS.stage}: starts at update {start} from {origin}")
    if start >= FLAGS.steps:
        print(f"{stage_dir}: already trained for {start} updates; nothing to do")
        return
    _write_run_files(stage_dir, streams, network)

    # The loop.
    transform = Transform(
        config.image_size, FLAGS.resize_to or round(config.image_size * 330 / 320), FLAGS.mirror
    )
    batches = training_batches(streams, transform, FLAGS.batch_size, FLAGS.seed, start)
    pictured = FLAGS.stage not in CLASSIFIER_STAGES
    if pictured:  # Always the same examples, so that pictures can be compared.
        first = iter(training_batches(streams, transform, FLAGS.batch_size, FLAGS.seed))
        shown = _next(first, streams, 0)
    monitor = Monitor(stage_dir, start, FLAGS.steps, FLAGS.batch_size, FLAGS.summary_every)
    reader = iter(strategy.experimental_distribute_dataset(batches))
    try:
        for done in range(start + 1, FLAGS.steps + 1):
            monitor.update(done, train_step(_next(reader, streams, done - 1)))
            step.assign(done)
            if done % FLAGS.checkpoint_every == 0 or done == FLAGS.steps:
                monitor.flush()
                require_finite_weights(network, done)
                manager.save(checkpoint_number=done)
            last = done == FLAGS.steps
            if pictured and (last or done % FLAGS.pictures_every == 0):
                drawn = {domain: pictures_of(network, shown[domain]) for domain in streams}
                monitor.pictures(done, drawn)
    finally:
        monitor.close()


def model_config(num_labels: int) -> ModelConfig:
    """Returns the preset with what the flags change of it."""
    overrides = {name: getattr(FLAGS, name) for name in _CONFIG_FLAGS}
    given = {name: value for name, value in overrides.items() if value is not None}
    return preset(FLAGS.preset).replace(num_labels=num_labels, **given)


def _strategy(cpu_devices: int) -> tf.distribute.Strategy:
    """MirroredStrategy over all GPUs, the CPU, or logical parts of the CPU."""
    if not cpu_devices:
        return tf.distribute.MirroredStrategy()
    parts = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])


def _open_streams() -> dict[str, PairStream]:
    streams = {}
    for domain, name in (("source", FLAGS.source_split), ("target", FLAGS.target_split)):
        if not name:
            continue
        split = Split.load(FLAGS.data_dir, name)
        if split.domain != domain:
            raise InputError(f"--{domain}_split={name}: was built as {split.domain} records")
        source = domain == "source"
        streams[domain] = PairStream(
            split,
            FLAGS.seed,
            fraction=FLAGS.source_fraction if source else 1.0,
            subset_seed=FLAGS.subset_seed,
            # Only the joint stage looks at masks, so that the others take records without.
            masks=None if source and FLAGS.stage == "joint" else 0 if source else FLAGS.target_masks,
        )
    if not streams:
        raise InputError("--source_split and --target_split are both empty: there is nothing to train on")
    if FLAGS.stage == "joint" and "source" not in streams:
        raise InputError("--stage=joint: the decoder is trained on masks; give a --source_split")
    return streams


def _common_label_map(streams: dict[str, PairStream]):
    maps = [stream.split.label_map for stream in streams.values()]
    if any(other != maps[0] for other in maps):
        raise InputError(
            f"{FLAGS.data_dir}: the splits were built with different label maps; build both with one"
        )
    return maps[0]


def _next(reader, streams: dict[str, PairStream], step: int):
    try:
        return next(reader)
    except tf.errors.OpError as error:
        raise explain_failure(streams, FLAGS.batch_size, step, error) from error


def _write_run_files(stage_dir: Path, streams: dict[str, PairStream], network: keras.Model) -> None:
    """Writes the resolved flags as a flagfile, and what they ran on."""
    own = sorted(FLAGS.get_key_flags_for_module(sys.modules[__name__]), key=lambda flag: flag.name)
    lines = [flag.serialize() for flag in own if flag.value is not None]
    write_atomic(stage_dir / "flags.cfg", "".join(f"{line}\n" for line in lines if line).encode())
    run = {
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
                "fraction": FLAGS.source_fraction if domain == "source" else 1.0,
                "subset_seed": FLAGS.subset_seed,
                "sha256": stream.split.summary["sha256"],
            }
            for domain, stream in streams.items()
        },
    }
    write_atomic(stage_dir / "run.json", json.dumps(run, indent=2).encode())


if __name__ == "__main__":
    cli.run(main)
