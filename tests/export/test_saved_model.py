"""The exported SavedModel, read by processes that know nothing of this project."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import THREE_BLOCKS
from tensorflow.core.protobuf import saved_model_pb2

from export.saved_model import export_model, next_version
from tfseg.data.labels import Label, LabelMap
from tfseg.errors import InputError
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import BUILDERS, build_classifier

REPOSITORY = Path(__file__).resolve().parents[2]
LABEL_MAP = LabelMap("five", tuple(Label(i, f"l{i}", "target" if i < 3 else "source") for i in range(1, 6)))
CONFIG = THREE_BLOCKS.replace(image_size=32, classifier_units=6)


def _network(name, seed=0):
    keras.utils.set_random_seed(seed)
    network = BUILDERS[name](CONFIG)
    kernels = [network.get_layer("decoder").get_layer("seg_score").kernel]
    if name == "transfernet":
        kernels.append(network.get_layer("attention").get_layer("att_w").kernel)
    for kernel in kernels:  # Probabilities far from one half, attention far from uniform.
        kernel.assign(100.0 * kernel)
    return network


def _sample(batch=3, seed=1):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (batch, 32, 32, 3)).astype(np.float32)
    return image, rng.integers(1, 6, batch).astype(np.int32)


def _probability(network, image, label):
    """Softmax foreground in NumPy."""
    logits = np.asarray(network({"image": image, "label": label})["mask_logits"], np.float64)
    return 1.0 / (1.0 + np.exp(logits[..., 0] - logits[..., 1]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model directory, its networks, and version 1 of its export by the command."""
    folder = tmp_path_factory.mktemp("export")
    network = _network("transfernet")
    keras.utils.set_random_seed(1)
    classifier = build_classifier(CONFIG)
    save_model_dir(ModelDir(folder / "model", "transfernet", CONFIG, LABEL_MAP), network, classifier)
    command = [sys.executable, "-m", "export.saved_model", f"--model_dir={folder / 'model'}"]
    command.append(f"--output_dir={folder / 'out'}")
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert re.search(r"out/1: written; reloaded, it differs .* by at most [0-9.]+e[-+]", finished.stdout)
    return folder, network, classifier


READER = """
import sys
import numpy as np
import tensorflow as tf
assert not [name for name in sys.modules if name.startswith(("tfseg", "export"))]
folder, samples = sys.argv[1:]
loaded = tf.saved_model.load(folder)
inputs = np.load(samples)
results = {}
for batch in (1, 3):
    image, label = tf.constant(inputs["image"][:batch]), tf.constant(inputs["label"][:batch])
    serve = loaded.signatures["serving_default"]
    results[f"probability{batch}"] = serve(image=image, label=label)["probability"]
    results[f"classes{batch}"] = loaded.signatures["classify"](image=image)["probability"]
np.savez(samples + ".out.npz", **results)
assert not [name for name in sys.modules if name.startswith(("tfseg", "export"))]
"""


def test_reloaded_without_the_project_it_gives_the_same(exported, tmp_path):
    folder, network, classifier = exported
    image, label = _sample()
    np.savez(tmp_path / "samples.npz", image=image, label=label)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "-c", READER, folder / "out/1", tmp_path / "samples.npz"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    results = np.load(tmp_path / "samples.npz.out.npz")
    expected = _probability(network, image, label)
    assert np.ptp(expected) > 0.2 and np.abs(expected[0] - expected[1]).max() > 0.05
    logits = classifier({"image": image})["class_logits"].numpy()
    for batch in (1, 3):
        probability = results[f"probability{batch}"]
        assert probability.dtype == np.float32 and probability.shape == (batch, 32, 32)
        np.testing.assert_allclose(probability, expected[:batch], rtol=0, atol=1e-5)
        classes = results[f"classes{batch}"]
        np.testing.assert_allclose(classes, 1 / (1 + np.exp(-logits[:batch])), rtol=0, atol=1e-5)


def test_signatures(exported):
    folder, _, _ = exported
    signatures = tf.saved_model.load(str(folder / "out/1")).signatures
    assert set(signatures) == {"serving_default", "classify"}

    def described(specifications):
        return {name: (spec.shape.as_list(), spec.dtype.name) for name, spec in specifications.items()}

    image = {"image": ([None, 32, 32, 3], "float32")}
    serve, classify = signatures["serving_default"], signatures["classify"]
    arguments, named = serve.structured_input_signature
    assert arguments == () and described(named) == {**image, "label": ([None], "int32")}
    assert described(classify.structured_input_signature[1]) == image
    assert described(serve.structured_outputs) == {"probability": ([None, 32, 32], "float32")}
    assert described(classify.structured_outputs) == {"probability": ([None, 5], "float32")}


def test_the_graph_needs_neither_python_nor_xla(exported):
    """TensorFlow Serving has neither (DESIGN 4)."""
    folder, _, _ = exported
    saved = saved_model_pb2.SavedModel.FromString((folder / "out/1/saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        library = graph.graph_def.library.function
        nodes = [*graph.graph_def.node, *(node for function in library for node in function.node_def)]
        operations = {node.op for node in nodes}
        assert "Conv2D" in operations and len(nodes) > 100
        assert not {op for op in operations if "PyFunc" in op or op.startswith("Xla")}
        for owner in [*nodes, *library]:
            for key, value in owner.attr.items():
                assert not (key in ("_XlaMustCompile", "_noinline_xla") and value.b), owner


def test_label_map_lies_beside(exported):
    folder, _, _ = exported
    text = (folder / "out/1/assets.extra/labels.json").read_text()
    assert LabelMap.from_dict(json.loads(text)) == LABEL_MAP


def test_keras_loads_it_as_a_layer(exported):
    folder, network, _ = exported
    image, label = _sample()
    layer = keras.layers.TFSMLayer(str(folder / "out/1"), call_endpoint="serving_default")
    probability = layer({"image": image, "label": label})["probability"]
    np.testing.assert_allclose(probability, _probability(network, image, label), rtol=0, atol=1e-5)


def test_saved_model_cli(exported, tmp_path):
    folder, network, _ = exported
    image, label = _sample(batch=2)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "label.npy", label)
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    chosen = [f"--dir={folder / 'out/1'}", "--tag_set=serve", "--signature_def=serving_default"]

    def run(*words):
        finished = subprocess.run([*tool, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
        return finished.stdout

    shown = run("show", *chosen)
    assert re.search(r"inputs\['image'\].*\n.*DT_FLOAT\n.*\(-1, 32, 32, 3\)", shown)
    assert re.search(r"inputs\['label'\].*\n.*DT_INT32\n.*\(-1\)", shown)
    assert re.search(r"outputs\['probability'\].*\n.*DT_FLOAT\n.*\(-1, 32, 32\)", shown)
    run("run", *chosen, "--inputs=image=image.npy;label=label.npy", f"--outdir={tmp_path}")
    np.testing.assert_allclose(
        np.load(tmp_path / "probability.npy"), _probability(network, image, label), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["baselinenet", "decouplednet"])
def test_baselines_are_exported_alike(name, tmp_path):
    network = _network(name)
    directory = ModelDir(tmp_path / "model", name, CONFIG, LABEL_MAP)
    assert export_model(directory, network, None, tmp_path / "out/1") <= 1e-5
    serve = tf.saved_model.load(str(tmp_path / "out/1")).signatures
    assert set(serve) == {"serving_default"}
    image, label = _sample()
    probability = serve["serving_default"](image=tf.constant(image), label=tf.constant(label))["probability"]
    np.testing.assert_allclose(probability, _probability(network, image, label), rtol=0, atol=1e-5)


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_never_overwritten(exported):
    folder, network, _ = exported
    before = _files(folder / "out")
    directory = ModelDir(folder / "model", "transfernet", CONFIG, LABEL_MAP)
    with pytest.raises(InputError, match="out/1: exists; versions are never overwritten"):
        export_model(directory, network, None, folder / "out/1")
    assert _files(folder / "out") == before


def test_versions_are_counted(tmp_path):
    assert next_version(tmp_path / "nothing") == next_version(tmp_path) == 1
    for name in ("1", "9", "10", "latest", ".tmp-77-1"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 11


def test_an_export_that_differs_is_not_written(tmp_path):
    """Weights that are no numbers make the comparison fail, whatever it would be compared with."""
    network = _network("transfernet")
    bias = network.get_layer("decoder").get_layer("seg_score").bias
    bias.assign(bias * np.nan)
    directory = ModelDir(tmp_path / "model", "transfernet", CONFIG, LABEL_MAP)
    with pytest.raises(InputError, match="differs from the Keras model by nan"):
        export_model(directory, network, None, tmp_path / "out/1")
    assert list((tmp_path / "out").iterdir()) == []


def test_killed_half_way_there_is_no_version(exported, tmp_path):
    folder, _, _ = exported
    command = [sys.executable, "-m", "export.saved_model", f"--model_dir={folder / 'model'}"]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*command, f"--output_dir={output}"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (output.is_dir() and any(output.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not [path for path in output.iterdir() if not path.name.startswith(".tmp-")]
    # What is left behind is no version for anybody, and the next export takes number 1.
    assert next_version(output) == 1


def test_no_model_is_told(tmp_path):
    command = [sys.executable, "-m", "export.saved_model", f"--output_dir={tmp_path / 'out'}"]
    finished = subprocess.run(
        [*command, f"--model_dir={tmp_path}"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 2
    assert f"error: {tmp_path}: not a model directory" in finished.stderr
    assert not (tmp_path / "out").exists()
