"""LiteRT: the signature `serving_default` for one image of one size, in float32 and with int8 weights."""

import sys

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
loaded = tf.saved_model.load(export)
serve = loaded.signatures["serving_default"]


def convert(size, optimizations):
    """A LiteRT model for images of `size`, (H, W): sizes become constants, and with them the resampling."""
    image, label = tf.TensorSpec((1, *size, 3), tf.float32), tf.TensorSpec((1,), tf.int32)

    @tf.function(input_signature=[image, label])
    def find(image, label):
        return {"probability": serve(image=image, label=label)["probability"]}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([find.get_concrete_function()], loaded)
    converter.optimizations = optimizations
    return Interpreter(model_content=converter.convert()).get_signature_runner()


found = {}
for key, name, optimizations in (
    ("square", "square", []),
    ("wide", "wide", []),
    ("int8", "square", [tf.lite.Optimize.DEFAULT]),
):
    images, labels = inputs[name], inputs[f"label_{name}"]
    runner = convert(images.shape[1:3], optimizations)
    rows = [runner(image=images[i : i + 1], label=labels[i : i + 1]) for i in range(len(images))]
    found[key] = np.concatenate([row["probability"] for row in rows])
np.savez(results, **found)
