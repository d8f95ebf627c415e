"""Consumers of an export that know nothing of tfseg, each held to the Keras model.

Those of the main environment run always. `make test-consumers` builds the other environments, runs all, and
prints the table of the largest differences.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_export import REPOSITORY

from tfseg.inference.postprocessing import from_square, scale_background
from tfseg.inference.preprocessing import to_square

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = {
    "main": Path(sys.prefix),
    "tfa": REPOSITORY / ".venv-tfa",
    **{name: REPOSITORY / ".venv-consumers" / name for name in ("formats", "tfx", "tfjs", "beam")},
}
EXACT = 1e-5
# OpenVINO computes float64 in float32: the weights of the resampling, which an image of S x S does not need.
TOLERANCE = {"OpenVINO": {"wide": 1e-3}}


class Samples(NamedTuple):
    path: Path
    arrays: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def table():
    """Rows of (consumer, what was compared, worst)."""
    rows = []
    yield rows
    lines = [f"{consumer:44} {what:28} {worst}" for consumer, what, worst in rows]
    print("\n" + "\n".join(lines))
    if os.environ.get("TFSEG_CONSUMERS_TABLE"):
        Path(os.environ["TFSEG_CONSUMERS_TABLE"]).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def samples(exported, tmp_path_factory):
    rng = np.random.default_rng(0)
    size = exported.config.image_size
    image = rng.integers(0, 256, (51, 77, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    arrays = {
        "square": rng.uniform(0, 255, (3, size, size, 3)).astype(np.float32),
        "label_square": np.array([1, 4, 5], np.int32),
        "wide": rng.integers(0, 256, (2, 51, 77, 3)).astype(np.float32),
        "label_wide": np.array([4, 2], np.int32),
        "encoded": np.void(encoded.getvalue()),
        "label_encoded": np.array([4], np.int32),
    }
    path = tmp_path_factory.mktemp("consumers") / "samples.npz"
    np.savez(path, **arrays)
    expected = {"mask": exported.segmenter.segment(image, [4]).label_map}
    for name in ("square", "wide"):
        images = arrays[name]
        if name == "wide":
            images = np.stack([to_square(one.astype(np.uint8), size) for one in images]).astype(np.float32)
        outputs = exported.network({"image": images, "label": arrays[f"label_{name}"]})
        probability = tf.nn.softmax(outputs["mask_logits"])[..., 1].numpy()
        if name == "wide":
            probability = from_square(probability, 51, 77).clip(0, 1)
        assert np.ptp(probability) > 0.2
        expected[name] = probability
    return Samples(path, arrays, expected)


def python_of(environment):
    python = ENVIRONMENTS[environment] / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{python.parent.parent.name}/ is not built: make test-consumers builds it")
    return python


def run(command, folder):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def hold(consumer, results, expected, table):
    """Probabilities to 1e-5; masks but for pixels at the threshold."""
    worst = 0.0
    for name in results:
        if name == "mask":
            assert results[name].shape == expected[name].shape
            assert (results[name] != expected[name]).mean() < 0.002
            continue
        assert results[name].shape == expected[name].shape and results[name].dtype == np.float32
        difference = float(np.abs(results[name] - expected[name]).max())
        worst = max(worst, difference)
        assert difference <= TOLERANCE.get(consumer, {}).get(name, EXACT), name
    parts = ", ".join(sorted(results))
    table.append((consumer, parts, f"{worst:.1e}" if set(results) != {"mask"} else "masks agree"))


SCRIPTS = [
    ("TensorFlow 2.21", "main", "run_plain_tensorflow.py", []),
    ("TensorFlow 2.21, DisableXlaCompilation", "main", "run_plain_tensorflow.py", ["--no_xla"]),
    ("Keras TFSMLayer", "main", "run_tfsm_layer.py", []),
    ("TensorFlow 2.15.1 + tensorflow-addons", "tfa", "run_plain_tensorflow.py", ["--addons"]),
    ("OpenVINO", "formats", "run_openvino_runtime.py", []),
    ("tf2onnx + ONNX Runtime", "formats", "run_onnx_runtime.py", []),
    ("tfx-bsl RunInference", "tfx", "run_tfx_bsl.py", []),
]


@pytest.mark.parametrize(("consumer", "environment", "script", "flags"), SCRIPTS, ids=[s[0] for s in SCRIPTS])
def test_consumer(exported, samples, table, tmp_path, consumer, environment, script, flags):
    python, results = python_of(environment), tmp_path / "results.npz"
    run([python, HERE / script, exported.version_dir, samples.path, results, *flags], tmp_path)
    with np.load(results) as found:
        hold(consumer, dict(found), samples.expected, table)


def test_litert(exported, samples, table, tmp_path):
    results = tmp_path / "results.npz"
    run([python_of("formats"), HERE / "run_litert.py", exported.version_dir, samples.path, results], tmp_path)
    with np.load(results) as loaded:
        found = dict(loaded)
    quantized = found.pop("int8")
    hold("LiteRT, float32", found, samples.expected, table)
    mask, expected = (scale_background(p, 0.5) > 0.5 for p in (quantized, samples.expected["square"]))
    iou = (mask & expected).sum() / (mask | expected).sum()
    difference = np.abs(quantized - samples.expected["square"]).max()
    table.append(("LiteRT, int8 weights (dynamic range)", "square", f"{difference:.1e}, IoU {iou:.4f}"))
    assert iou >= 0.95 and 0.1 < expected.mean() < 0.9


def test_tensorflow_js(exported, samples, table, tmp_path):
    python, results = python_of("tfjs"), tmp_path / "results.npz"
    if shutil.which("node") is None or not (ENVIRONMENTS["tfjs"] / "node_modules/@tensorflow/tfjs").is_dir():
        pytest.skip("no Node.js with @tensorflow/tfjs")
    run([python, HERE / "run_tensorflowjs.py", exported.version_dir, samples.path, results], tmp_path)
    with np.load(results) as found:
        hold("TensorFlow.js", dict(found), samples.expected, table)


def test_saved_model_cli(exported, samples, table, tmp_path):
    for name, key in (("image", "wide"), ("label", "label_wide")):
        np.save(tmp_path / f"{name}.npy", samples.arrays[key])
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    chosen = [f"--dir={exported.version_dir}", "--tag_set=serve", "--signature_def=serving_default"]
    shown = run([*tool, "show", *chosen], tmp_path)
    assert "inputs['image']" in shown and "outputs['probability']" in shown
    inputs = "--inputs=image=image.npy;label=label.npy"
    run([*tool, "run", *chosen, inputs, f"--outdir={tmp_path}"], tmp_path)
    hold("saved_model_cli", {"wide": np.load(tmp_path / "probability.npy")}, samples.expected, table)


def test_a_c_program(exported, samples, table, tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = Path(tf.__file__).parent
    command = [
        compiler,
        "-O1",
        HERE / "c_program.c",
        f"-I{library / 'include'}",
        "-o",
        tmp_path / "c_program",
    ]
    names = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
    run([*command, *(library / name for name in names), f"-Wl,-rpath,{library}"], tmp_path)
    image, label = samples.arrays["wide"], samples.arrays["label_wide"]
    (tmp_path / "in").write_bytes(image.tobytes() + label.tobytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported.version_dir))
    signature = loaded.signature_def["serving_default"]
    ports = [signature.inputs["image"].name, signature.inputs["label"].name]
    operations = [port.removesuffix(":0") for port in ports]
    fetched = signature.outputs["probability"].name.split(":")
    sizes = [str(size) for size in image.shape[:3]]
    run([tmp_path / "c_program", exported.version_dir, *operations, *fetched, *sizes, "in", "out"], tmp_path)
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.float32).reshape(image.shape[:3])
    hold("C on libtensorflow, DisableXlaCompilation", {"wide": found}, samples.expected, table)
