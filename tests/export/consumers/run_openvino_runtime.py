"""OpenVINO, which converts the signature `serving_default` for one size of image."""

import sys

import numpy as np
import openvino as ov

export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
core = ov.Core()
found = {}
for name in ("square", "wide"):
    image, label = inputs[name], inputs[f"label_{name}"]
    shapes = [("image", list(image.shape), ov.Type.f32), ("label", list(label.shape), ov.Type.i32)]
    model = ov.convert_model(export, input=shapes)
    # The CPU plug-in computes in bfloat16 where the processor can.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"image": image, "label": label})
    found[name] = next(v for key, v in answer.items() if "probability" in key.get_names())
np.savez(results, **found)
