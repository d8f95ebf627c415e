"""TensorFlow alone, of this version or of 2.15.1."""

import ctypes
import os
import sys

import numpy as np
import tensorflow as tf

export, samples, results = sys.argv[1:4]
if "--no_xla" in sys.argv:  # As TensorFlow Serving does it, for the whole process.
    library = ctypes.CDLL(os.path.join(os.path.dirname(tf.__file__), "libtensorflow_cc.so.2"))
    library._ZN10tensorflow21DisableXlaCompilationEv()
if "--addons" in sys.argv:
    import tensorflow_addons as tfa

    assert tfa.__version__ == "0.23.0"
inputs = np.load(samples)
loaded = tf.saved_model.load(export)
serve = loaded.signatures["serving_default"]
found = {}
for name in ("square", "wide"):
    image, label = tf.constant(inputs[name]), tf.constant(inputs[f"label_{name}"])
    found[name] = serve(image=image, label=label)["probability"].numpy()
file = tf.constant([inputs["encoded"].tobytes()])
label = tf.constant(inputs["label_encoded"])
mask = loaded.signatures["bytes"](image_bytes=file, label=label)["mask_bytes"]
found["mask"] = tf.io.decode_png(mask[0]).numpy()[..., 0]
assert not [name for name in sys.modules if name.startswith(("tfseg", "export."))]
np.savez(results, **found)
