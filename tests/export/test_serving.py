"""An export behind TensorFlow Serving's interfaces: REST and gRPC give what was recorded with it.

By default the server is `serving_server`. `make serve-smoke URL=... EXPORT=...` runs the same tests against a
real one: TFSEG_SERVE_URL is the model's URL, TFSEG_SERVE_GRPC its gRPC address, TFSEG_SERVE_EXPORT the
export that it serves.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from serving_server import Server
from small_export import REPOSITORY

from export import verify, warmup
from export.warmup import Call
from tfseg.model_dir import find_saved_model


class Served(NamedTuple):
    url: str
    grpc: str | None
    calls: dict[str, Call]
    labels: int

    @property
    def name(self):
        return self.url.split("/v1/models/")[1].split("/")[0]


def _served(url, grpc, version_dir):
    calls = {call.signature: call for call in warmup.read(version_dir)}
    described = json.loads((version_dir / "assets.extra/export.json").read_text())
    return Served(url, grpc, calls, described["limits"]["labels"])


@pytest.fixture(scope="module")
def served(request):
    url = os.environ.get("TFSEG_SERVE_URL")
    if url:
        version_dir = find_saved_model(Path(REPOSITORY, os.environ["TFSEG_SERVE_EXPORT"]))
        yield _served(url.rstrip("/"), os.environ.get("TFSEG_SERVE_GRPC"), version_dir)
        return
    exported = request.getfixturevalue("exported")
    with Server(exported.version_dir).running() as (own_url, grpc):
        yield _served(own_url, grpc, exported.version_dir)


NAMES = [
    "serving_default",
    "pixels",
    "labels",
    "attention",
    "bytes",
    "segment_labels",
    "examples",
    "classify",
    "segment",
]


def recorded(served, name):
    if name not in served.calls:
        pytest.skip(f"the export has no signature {name}: it has no classifier")
    return served.calls[name]


def get(url):
    with urllib.request.urlopen(url, timeout=300) as response:
        return json.load(response)


def post(url, body):
    """Returns (status, JSON)."""
    request = urllib.request.Request(url + ":predict", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def to_json(value):
    if value.dtype != object:
        return value.tolist()
    return [to_json(np.array(v, object)) if isinstance(v, list) else b64(v) for v in value.tolist()]


def b64(value):
    return {"b64": base64.b64encode(value).decode()}


def from_json(value, like):
    """Reads a column of an answer as an array like the recorded one."""

    def one(v):
        if isinstance(v, list):
            return [one(x) for x in v]
        if isinstance(v, dict):
            return base64.b64decode(v["b64"])
        return v.encode() if isinstance(v, str) else v

    found = one(value)
    if like.dtype != object:
        return np.array(found, like.dtype)
    array = np.empty(like.shape, object)
    array[...] = np.array(found, object).reshape(like.shape)
    return array


def assert_recorded(name, outputs, call):
    assert set(outputs) == set(call.outputs)
    for key, expected in call.outputs.items():
        is_mask = expected.dtype == np.uint8 or key.endswith("_bytes")
        difference = verify.difference_of(expected, outputs[key], is_mask)
        assert difference <= (verify.MASK_TOLERANCE if is_mask else 1e-4), (name, key, difference)


def test_the_model_is_available(served):
    status = get(served.url)["model_version_status"]
    assert status[0]["state"] == "AVAILABLE"
    metadata = get(f"{served.url}/metadata")["metadata"]["signature_def"]["signature_def"]
    assert set(served.calls) <= set(metadata)


@pytest.mark.parametrize("name", NAMES)
def test_rest_columns(served, name):
    call = recorded(served, name)
    inputs = {key: to_json(value) for key, value in call.inputs.items()}
    status, content = post(served.url, {"signature_name": name, "inputs": inputs})
    assert status == 200, content
    outputs = content["outputs"]
    if len(call.outputs) == 1:
        outputs = {next(iter(call.outputs)): outputs}
    found = {key: from_json(outputs[key], value) for key, value in call.outputs.items()}
    assert_recorded(name, found, call)


@pytest.mark.parametrize("name", NAMES)
def test_rest_rows(served, name):
    call = recorded(served, name)
    columns = {key: to_json(value) for key, value in call.inputs.items()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    status, content = post(served.url, {"signature_name": name, "instances": rows})
    assert status == 200, content
    single = next(iter(call.outputs)) if len(call.outputs) == 1 else None
    answers = [{single: row} if single else row for row in content["predictions"]]
    found = {
        key: from_json([answer[key] for answer in answers], value) for key, value in call.outputs.items()
    }
    assert_recorded(name, found, call)


@pytest.fixture(scope="module")
def stub(served):
    if served.grpc is None:
        pytest.skip("no gRPC address was given (GRPC=HOST:8500)")
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    channel = grpc.insecure_channel(served.grpc, [("grpc.max_receive_message_length", -1)])
    yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    channel.close()


def grpc_call(stub, served, name, inputs):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = served.name, name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    response = stub.Predict(request, timeout=300)
    return {key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_grpc(served, stub, name):
    call = recorded(served, name)
    assert_recorded(name, grpc_call(stub, served, name, call.inputs), call)


def test_rest_floats_of_older_clients(served):
    """They sent 7.0, and no signature name."""
    call = recorded(served, "serving_default")
    if call.inputs["image"].dtype != np.float32:
        pytest.skip("exported with --image_dtype=uint8")
    inputs = {"image": call.inputs["image"].astype(float).tolist(), "label": call.inputs["label"].tolist()}
    status, content = post(served.url, {"inputs": inputs})
    assert status == 200
    found = np.array(content["outputs"]["probability"], np.float32)
    np.testing.assert_allclose(found, call.outputs["probability"], rtol=0, atol=1e-4)


def test_a_refused_row_is_named_by_both(served, stub):
    import grpc

    call = recorded(served, "bytes")
    label = call.inputs["label"].copy()
    label[-1] = served.labels + 1
    said = f"row {len(label) - 1}: label: {served.labels + 1}; allowed are 1 to {served.labels}"
    inputs = {**call.inputs, "label": label}
    columns = {key: to_json(value) for key, value in inputs.items()}
    status, content = post(served.url, {"signature_name": "bytes", "inputs": columns})
    assert status == 400 and said in content["error"]
    with pytest.raises(grpc.RpcError) as caught:
        grpc_call(stub, served, "bytes", inputs)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and said in caught.value.details()


def test_other_signatures_and_models_are_refused(served):
    status, content = post(served.url, {"signature_name": "nobody", "inputs": [1]})
    assert status in (400, 404) and "signature" in content["error"].lower()
    status, content = post(served.url.replace(served.name, "nobody"), {"inputs": [1]})
    assert status == 404 and "Servable not found" in content["error"]
