"""Run by test_tfa_unpooling.py in the second environment: unpooling by TensorFlow Addons.

Usage: tfa_unpool.py INPUT.npz OUTPUT.npz; input arrays `NAME/values` and `NAME/argmax`, output `NAME`.
"""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main(source: str, target: str) -> None:
    data = np.load(source)
    names = sorted({key.split("/")[0] for key in data.files})
    results = {"versions": np.array([tf.__version__, tfa.__version__])}
    for name in names:
        values = tf.constant(data[f"{name}/values"])
        unpool = tfa.layers.MaxUnpooling2D()
        with tf.GradientTape() as tape:
            tape.watch(values)
            unpooled = unpool(values, tf.constant(data[f"{name}/argmax"]))
        upstream = tf.constant(data[f"{name}/upstream"])
        results[name] = unpooled.numpy()
        results[f"{name}/gradient"] = tape.gradient(unpooled, values, upstream).numpy()
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
