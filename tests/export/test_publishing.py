"""What lies in a version besides the graph, and how versions come to be."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from small_export import REPOSITORY, make_network
from tensorflow_serving.apis import prediction_log_pb2

from export import verify, warmup
from export.publish import export_model, next_version
from export.signatures import Options
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the version, for tests that damage it."""
    return shutil.copytree(exported.version_dir, tmp_path / "copy" / "1")


@pytest.fixture(scope="module")
def half(exported):
    """The same weights as float16."""
    version_dir = exported.folder / "half" / "1"
    agreement = export_model(
        exported.directory, exported.network, exported.classifier, version_dir, weights_dtype="float16"
    )
    return version_dir, agreement


def test_label_map_lies_beside(exported):
    text = (exported.version_dir / "assets.extra/labels.json").read_text()
    assert LabelMap.from_dict(json.loads(text)) == exported.label_map


def test_warm_up_requests_are_tensorflow_servings(exported, signatures):
    path = exported.version_dir / "assets.extra/tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in requests} == set(signatures)
    assert len(requests) <= 1000
    for request in requests:
        wanted = signatures[request.model_spec.signature_name].structured_input_signature[1]
        assert {name: tensor.dtype for name, tensor in request.inputs.items()} == {
            name: specification.dtype.as_datatype_enum for name, specification in wanted.items()
        }


def test_a_whole_copy_is_proved(copy, capsys, signatures):
    assert verify.main([str(copy.parent)]) == 0
    out = capsys.readouterr().out
    for name in signatures:
        assert f"{name} " in out
    assert "whole; 9 signatures give what they gave when they were exported" in out


def test_a_copy_that_is_not_whole_is_named(copy):
    weights = next((copy / "variables").glob("*.data-*"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    for spoil, said in (
        (lambda: weights.write_bytes(data), "other content than was exported"),
        (lambda: weights.write_bytes(data[:-1]), r"bytes; exported were"),
        (weights.unlink, "is missing; the copy is not whole"),
        (lambda: (copy / "assets.extra/files.json").write_text("{"), "damaged"),
        ((copy / "assets.extra/files.json").unlink, "cannot be read"),
        ((copy / "saved_model.pb").unlink, "holds no SavedModel"),
    ):
        spoil()
        with pytest.raises(InputError, match=said):
            verify.verify(copy)


def test_an_answer_that_differs_is_named(copy, monkeypatch):
    """As it would on a machine that computes something else."""
    plain = warmup.call

    def shifted(function, inputs):
        answer = plain(function, inputs)
        return {name: value + 1e-3 if name == "probability" else value for name, value in answer.items()}

    monkeypatch.setattr(warmup, "call", shifted)
    with pytest.raises(InputError, match=r"probability: differs from what was recorded by 1\.0e-03"):
        verify.verify(copy)
    assert verify.verify(copy, tolerance=0.01)["serving_default"] == pytest.approx(1e-3, rel=0.1)


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    """The other export was made by another process."""
    export_model(exported.directory, exported.network, exported.classifier, tmp_path / "again/7")
    ours, theirs = (
        tf.train.load_checkpoint(str(folder / "variables/variables"))
        for folder in (exported.version_dir, tmp_path / "again/7")
    )
    names = set(ours.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert names == set(theirs.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    # Each variable once.
    assert len(names) == len(exported.network.weights) + len(exported.classifier.weights)
    for name in names:
        assert ours.get_tensor(name).tobytes() == theirs.get_tensor(name).tobytes(), name
    calls = zip(warmup.read(exported.version_dir), warmup.read(tmp_path / "again/7"), strict=True)
    for one, other in calls:
        assert one.signature == other.signature
        for name in one.outputs:
            np.testing.assert_array_equal(one.outputs[name], other.outputs[name])


def test_float16_halves_the_size_and_keeps_the_masks(exported, half, signatures):
    version_dir, agreement = half
    sizes = []
    for folder, dtype in ((exported.version_dir, tf.float32), (version_dir, tf.float16)):
        reader = tf.train.load_checkpoint(str(folder / "variables/variables"))
        dtypes = reader.get_variable_to_dtype_map()
        weights = [name for name, one in dtypes.items() if one.is_floating]
        assert {dtypes[name] for name in weights} == {dtype}
        shapes = reader.get_variable_to_shape_map()
        sizes.append(sum(int(np.prod(shapes[name])) * dtype.size for name in weights))
    assert sizes[1] == sizes[0] / 2 > 1000
    assert agreement.mask_agreement > 0.98 and 0 < agreement.difference < 0.1
    told = json.loads((version_dir / "assets.extra/export.json").read_text())["weights"]
    assert told["dtype"] == "float16"
    assert told["compared_with_keras"]["mask_iou"] == pytest.approx(agreement.mask_iou)
    loaded = tf.saved_model.load(str(version_dir))
    image = np.random.default_rng(0).uniform(0, 255, (2, 40, 50, 3)).astype(np.float32)
    inputs = {"image": tf.constant(image), "label": tf.constant([1, 4])}
    ours = signatures["serving_default"](**inputs)["mask"].numpy()
    assert (loaded.signatures["serving_default"](**inputs)["mask"].numpy() == ours).mean() > 0.98
    assert set(loaded.signatures) == set(signatures)


def test_without_classifier_and_with_uint8(exported, tmp_path):
    """The signatures of the classifier are missing, and servers see `image` as uint8; Python takes both."""
    options = Options(image_dtype="uint8", background_factor=1.0)
    export_model(exported.directory, exported.network, None, tmp_path / "out/1", options)
    loaded = tf.saved_model.load(str(tmp_path / "out/1"))
    names = {"serving_default", "pixels", "labels", "attention", "bytes", "segment_labels", "examples"}
    assert set(loaded.signatures) == names
    described = json.loads((tmp_path / "out/1/assets.extra/export.json").read_text())["signatures"]
    assert set(described) == names and "scores" not in described["examples"]["outputs"]
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), np.uint8)
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1]["image"].dtype == tf.uint8
    found = serve(image=tf.constant(image), label=tf.constant([1]))
    np.testing.assert_array_equal(found["mask"] > 0, found["probability"].numpy() > 0.5)
    other = loaded.serving_default({"image": tf.constant(image, tf.float32), "label": tf.constant([1])})
    np.testing.assert_array_equal(other["probability"], found["probability"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="row 0: image/labels: is missing"):
        empty = tf.train.Example()
        empty.features.feature["image/encoded"].bytes_list.value.append(
            tf.io.encode_png(tf.zeros((4, 4, 3), tf.uint8)).numpy()
        )
        loaded.signatures["examples"](examples=tf.constant([empty.SerializeToString()]))


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_never_overwritten(exported):
    before = _files(exported.version_dir)
    with pytest.raises(InputError, match="out/1: exists; versions are never overwritten"):
        export_model(exported.directory, exported.network, None, exported.version_dir)
    assert _files(exported.version_dir) == before


def test_versions_are_counted(tmp_path):
    assert next_version(tmp_path / "nothing") == next_version(tmp_path) == 1
    for name in ("1", "9", "10", "latest", ".tmp-77-1"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 11


def test_an_export_that_differs_is_not_written(exported, tmp_path):
    """Weights that are no numbers make the comparison fail, whatever it would be compared with."""
    network = make_network()
    bias = network.get_layer("decoder").get_layer("seg_score").bias
    bias.assign(bias * np.nan)
    with pytest.raises(InputError, match="differs from the Keras model by nan"):
        export_model(exported.directory, network, None, tmp_path / "out/1")
    assert list((tmp_path / "out").iterdir()) == []


def test_killed_half_way_there_is_no_version(exported, tmp_path):
    command = [sys.executable, "-m", "export.saved_model", f"--model_dir={exported.folder / 'model'}"]
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*command, f"--output_dir={output}"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 1800
    while not (output.is_dir() and any(output.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not [path for path in output.iterdir() if not path.name.startswith(".tmp-")]
    # What is left behind is no version for anybody, and the next export takes number 1.
    assert next_version(output) == 1


def test_no_model_is_told(tmp_path, capsys):
    from export import saved_model

    assert saved_model.main([f"--output_dir={tmp_path / 'out'}", f"--model_dir={tmp_path}"]) == 2
    assert f"error: {tmp_path}: not a model directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
