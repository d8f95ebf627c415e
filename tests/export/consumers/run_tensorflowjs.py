"""TensorFlow.js: its converter, and its own JavaScript in Node.js."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
loaded = tf.saved_model.load(export)
serve = loaded.signatures["serving_default"]


@tf.function
def find(image, label):
    """`probability` alone: TensorFlow.js has no uint8, which `mask` is."""
    return {"probability": serve(image=image, label=label)["probability"]}


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    module = tf.Module()
    module.loaded, module.find = loaded, find
    images, labels = tf.TensorSpec((None, None, None, 3), tf.float32), tf.TensorSpec((None,), tf.int32)
    tf.saved_model.save(module, folder / "saved", find.get_concrete_function(images, labels))
    # Strings are in messages alone. They go with the assertions, but are looked for before.
    command = [Path(sys.executable).with_name("tensorflowjs_converter"), "--input_format=tf_saved_model"]
    command += ["--output_format=tfjs_graph_model", "--skip_op_check", folder / "saved", folder / "model"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    found = {}
    for key in ("square", "wide"):
        image, label = inputs[key], inputs[f"label_{key}"]
        (folder / "in").write_bytes(image.tobytes() + label.tobytes())
        shape = [str(size) for size in image.shape[:3]]
        environment = {**os.environ, "NODE_PATH": f"{sys.prefix}/node_modules"}
        script = [HERE / "run_tensorflowjs.js", folder / "model", *shape, folder / "in", folder / "out"]
        done = subprocess.run(["node", *script], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        found[key] = np.frombuffer((folder / "out").read_bytes(), np.float32).reshape(image.shape[:3])
np.savez(results, **found)
