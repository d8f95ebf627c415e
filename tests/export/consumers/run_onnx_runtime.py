"""tf2onnx and ONNX Runtime."""

import subprocess
import sys

import numpy as np
import onnxruntime

export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
model = results + ".onnx"
command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", export, "--tag", "serve"]
command += ["--signature_def", "serving_default", "--output", model, "--opset", "18"]
done = subprocess.run(command, capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr[-4000:])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
names = {entry.name.split(":")[0]: entry.name for entry in session.get_inputs()}
found = {}
for name in ("square", "wide"):
    feeds = {names["image"]: inputs[name], names["label"]: inputs[f"label_{name}"]}
    (found[name],) = session.run(["probability"], feeds)
np.savez(results, **found)
