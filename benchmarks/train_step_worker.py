"""Run by train_step.py, one process for each source tree: updates of the joint stage, on request.

Usage: train_step_worker.py '{"preset": ..., "image_size": ..., "batch_size": ..., "micro_batch_size": ...,
"dtype_policy": ..., "jit_compile": ..., "threads": ...}'; see `timing.serve`. It tells of the first update
and of what the start took, and measures `update` and `floor`.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from timing import Laps, serve

from tfseg.config import ModelConfig, preset
from tfseg.models import build_transfernet
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.stages import SegmentationStage
from tfseg.training.step import build_train_step

DOMAINS = ("source", "target")


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    options = json.loads(text)
    start = Laps(options["started"])
    start.end("imports")
    tf.get_logger().setLevel("ERROR")  # The floor traces one function for many shapes.
    tf.config.threading.set_intra_op_parallelism_threads(options["threads"])
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options["dtype_policy"])
    config = preset(options["preset"])
    config = config.replace(image_size=options["image_size"] or config.image_size)
    batch_size, micro_batch_size = options["batch_size"], options["micro_batch_size"]
    with tf.distribute.MirroredStrategy().scope():  # As tfseg.train does.
        stage = SegmentationStage(build_transfernet(config), joint=True)
        optimizer = AdamWithMultipliers(official_multipliers(stage.trained), learning_rate=1e-4)
        optimizer.build(stage.trained)
        step = build_train_step(
            stage, optimizer, DOMAINS, batch_size, micro_batch_size, options["jit_compile"]
        )
    batch = _batch(config, batch_size // 2)
    start.end("network")
    loss = float(step(batch)["loss"])
    start.end("first update")
    parameters = sum(int(np.prod(variable.shape)) for variable in stage.trained)
    micro = micro_batch_size or batch_size // 2
    serve(
        {"loss": loss, "start": start.seconds},
        {
            "update": lambda: float(step(batch)["loss"]),
            "floor": lambda: _floor(config, batch_size // 2, micro, parameters),
        },
    )


def _batch(config: ModelConfig, share: int) -> dict[str, dict[str, tf.Tensor]]:
    rng = np.random.default_rng(0)
    size = config.image_size
    batch = {}
    for domain in DOMAINS:
        low, high = (0, 2) if domain == "source" else (255, 256)
        batch[domain] = {
            "image": tf.constant(rng.uniform(0, 255, (share, size, size, 3)), tf.float32),
            "label": tf.constant(rng.integers(1, config.num_labels + 1, share), tf.int32),
            "mask": tf.constant(rng.integers(low, high, (share, size, size)), tf.uint8),
            "present": tf.zeros((share, config.num_labels)),
        }
    return batch


def _floor(config: ModelConfig, share: int, micro: int, parameters: int) -> float:
    """Runs an update's convolutions and nothing else, and moves the bytes that Adam must move.

    Every pair is encoded, and source pairs are decoded. A layer of the decoder takes three convolutions: its
    own, and those of the gradients of its input and its kernel. Adam reads gradient, weight and two moments,
    and writes all but the gradient: about as much as copying an array of all weights three times.
    """
    side, channels = config.image_size, 3
    layers = []
    for block, (depth, width) in enumerate(config.encoder_blocks):
        for _ in range(depth):
            layers.append((side >> block, channels, width))
            channels = width
    encoder = list(layers)
    decoder = [(side >> (len(config.encoder_blocks) - 1), 1, config.encoder_blocks[-2][1])]
    for block in range(len(config.encoder_blocks) - 2, -1, -1):
        depth, width = config.encoder_blocks[block]
        below = config.encoder_blocks[max(block - 1, 0)][1]
        decoder += [(side >> block, width, width)] * (depth - 1) + [(side >> block, width, below)]
    for count, part, gradients in ((2 * share, encoder, False), (share, decoder, True)):
        for size, inputs, outputs in part:
            x, kernel = tf.ones((micro, size, size, inputs)), tf.ones((3, 3, inputs, outputs))
            for _ in range(count // micro):
                _convolutions(x, kernel, gradients)
    moved = tf.zeros(parameters)
    for _ in range(3):
        moved = moved + 1.0
    return float(moved[0])


@tf.function
def _convolutions(x: tf.Tensor, kernel: tf.Tensor, gradients: bool) -> tf.Tensor:
    y = tf.nn.conv2d(x, kernel, 1, "SAME")
    if not gradients:
        return y[0, 0, 0, 0]
    same = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    back = tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=y, **same)
    outer = tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=y, **same)
    return y[0, 0, 0, 0] + back[0, 0, 0, 0] + outer[0, 0, 0, 0]


if __name__ == "__main__":
    main(sys.argv[1])
