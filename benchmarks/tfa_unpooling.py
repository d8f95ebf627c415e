"""Run by unpooling.py with .venv-tfa's Python: `tfa.layers.MaxUnpooling2D`, on request.

Usage: tfa_unpooling.py '{"shape": [B, H, W, C]}'; see `timing.serve`.
"""

import json
import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
from timing import serve


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.standard_normal(json.loads(text)["shape"]), 0).astype(np.float32)
    values, argmax = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")
    unpool = tfa.layers.MaxUnpooling2D()

    @tf.function
    def forward():
        return unpool(values, argmax)

    @tf.function
    def both():
        with tf.GradientTape() as tape:
            tape.watch(values)
            unpooled = unpool(values, argmax)
        return unpooled, tape.gradient(unpooled, values, unpooled)

    def wait(outputs) -> None:
        for output in tf.nest.flatten(outputs):
            output[0, 0, 0, 0].numpy()

    measurements = {
        "unpooling forward": lambda: wait(forward()),
        "unpooling forward + backward": lambda: wait(both()),
    }
    serve({"measurements": list(measurements)}, measurements)


if __name__ == "__main__":
    main(sys.argv[1])
