"""Run by test_tfa_model.py in the second environment: a small network of TensorFlow Addons.

Usage: tfa_model.py FOLDER; writes old.h5, the SavedModel `saved` and io.npz (image, output).
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main(folder: str) -> None:
    image = tf.keras.Input((16, 12, 3))
    x = tf.keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(image)
    values, argmax = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")
    values = tf.keras.layers.Conv2D(4, 3, padding="same", name="conv2")(values)
    x = tfa.layers.MaxUnpooling2D()(values, argmax)
    model = tf.keras.Model(image, tf.keras.layers.Conv2D(2, 1, name="score")(x))
    model.save_weights(Path(folder, "old.h5"))
    model.save(Path(folder, "saved"))
    sample = np.random.default_rng(0).standard_normal((2, 16, 12, 3)).astype(np.float32)
    np.savez(Path(folder, "io.npz"), image=sample, output=model(sample))


if __name__ == "__main__":
    main(*sys.argv[1:])
