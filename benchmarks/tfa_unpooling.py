"""Run by unpooling.py with .venv-tfa's Python: times `tfa.layers.MaxUnpooling2D`.

Usage: tfa_unpooling.py B,H,W,C ROUNDS; the last line printed is JSON of median milliseconds.
"""

import json
import sys
import time

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main(shape: str, rounds: str) -> None:
    """Prints the medians of forward, and of forward with backward."""
    sizes = tuple(map(int, shape.split(",")))
    maps = np.maximum(np.random.default_rng(0).standard_normal(sizes), 0).astype(np.float32)
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

    medians = {}
    for mode, function in (("forward", forward), ("forward + backward", both)):
        function()
        seconds = []
        for _ in range(int(rounds)):
            start = time.perf_counter()
            for output in tf.nest.flatten(function()):
                output[0, 0, 0, 0].numpy()
            seconds.append(time.perf_counter() - start)
        medians[mode] = 1e3 * float(np.median(seconds))
    print(json.dumps(medians))


if __name__ == "__main__":
    main(*sys.argv[1:])
