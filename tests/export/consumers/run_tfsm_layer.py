"""Keras 3, which takes a SavedModel as a layer."""

import sys

import keras
import numpy as np

export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
layer = keras.layers.TFSMLayer(export, call_endpoint="serving_default")
found = {}
for name in ("square", "wide"):
    image, label = inputs[name], inputs[f"label_{name}"]
    found[name] = layer({"image": image, "label": label})["probability"].numpy()
np.savez(results, **found)
