"""TensorFlow Serving's two interfaces over a real export, for tests where no TensorFlow Serving can run.

The model is loaded as the server loads it: a session of the tag `serve`, tensors fed and fetched by the names
of the signature. Messages are those of `tensorflow_serving.apis`; JSON follows the page of the REST API:
`instances` (rows) or `inputs` (columns), `{"b64": ...}` for binary strings, outputs as base64 where their
name ends in `_bytes`, a single output without its name.

`python tests/export/serving_server.py EXPORT_DIR` serves until Ctrl-C; not for use beyond tests.
"""

import base64
import contextlib
import json
import re
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

DEFAULT = "serving_default"
HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: 503,
}


class FailureError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class Server:
    """Attributes may change between calls: the next `refusals` are UNAVAILABLE, each is `delay` s late."""

    def __init__(self, version_dir, name="tfseg"):
        self.name, self.version = name, version_dir.name
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(version_dir))
        self.signatures = self._meta.signature_def
        self.refusals, self.delay, self.calls = 0, 0.0, 0
        self._lock = threading.Lock()

    def predict(self, name, version, signature_name, inputs):
        """`inputs` is NumPy by name; returns NumPy by name."""
        with self._lock:
            self.calls += 1
            refuse, self.refusals = self.refusals > 0, max(self.refusals - 1, 0)
        if refuse:
            raise FailureError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        threading.Event().wait(self.delay)
        signature = self.signature(name, version, signature_name)
        if set(inputs) != set(signature.inputs):
            raise FailureError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"input size does not match signature: {len(inputs)}!={len(signature.inputs)}",
            )
        feeds = {}
        for key, value in inputs.items():
            info = signature.inputs[key]
            wanted = tf.as_dtype(info.dtype)
            if tf.as_dtype(value.dtype) != wanted:
                given = tf.as_dtype(value.dtype).name
                message = f"Expects arg[0] to be {wanted.name} but {given} is provided"
                raise FailureError(grpc.StatusCode.INVALID_ARGUMENT, message)
            feeds[info.name] = value
        names = list(signature.outputs)
        try:
            outputs = self._session.run([signature.outputs[key].name for key in names], feeds)
        except tf.errors.InvalidArgumentError as error:
            raise FailureError(grpc.StatusCode.INVALID_ARGUMENT, error.message) from error
        except ValueError as error:  # A rank that the placeholder does not have.
            raise FailureError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        return dict(zip(names, outputs, strict=True))

    def signature(self, name, version, signature_name):
        if name != self.name or version not in (None, "", self.version):
            raise FailureError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
        if signature_name not in self.signatures:
            message = f'Serving signature key "{signature_name}" not found.'
            raise FailureError(grpc.StatusCode.FAILED_PRECONDITION, message)
        return self.signatures[signature_name]

    @contextlib.contextmanager
    def running(self, rest_port=0, grpc_port=0):
        """Yields (REST URL of the model, gRPC address)."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        rpc = grpc.server(futures.ThreadPoolExecutor(8), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), rpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Status(self), rpc)
        port = rpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
        rpc.start()
        rest = ThreadingHTTPServer(("127.0.0.1", rest_port), _rest_handler(self))
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{rest.server_port}/v1/models/{self.name}", f"127.0.0.1:{port}"
        finally:
            rest.shutdown()
            rest.server_close()
            rpc.stop(0).wait()
            self._session.close()


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    def Predict(self, request, context):  # noqa: N802
        spec = request.model_spec
        version = str(spec.version.value) if spec.HasField("version") else None
        response = predict_pb2.PredictResponse()
        try:
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            outputs = self._server.predict(spec.name, version, spec.signature_name or DEFAULT, inputs)
        except FailureError as failure:
            context.abort(failure.code, failure.message)
        response.model_spec.CopyFrom(spec)
        for key in request.output_filter or outputs:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        return _metadata(self._server)


class _Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self._server = server

    def GetModelStatus(self, request, context):  # noqa: N802
        return _status(self._server)


def _status(server):
    status = get_model_status_pb2.ModelVersionStatus(version=int(server.version), state="AVAILABLE")
    return get_model_status_pb2.GetModelStatusResponse(model_version_status=[status])


def _metadata(server):
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = server.name
    response.model_spec.version.value = int(server.version)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in server.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    response.metadata["signature_def"].Pack(signatures)
    return response


def _rest_handler(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers = {f"/v1/models/{server.name}": _status, f"/v1/models/{server.name}/metadata": _metadata}
            if self.path not in answers:
                self._send(404, {"error": "Malformed request: GET " + self.path})
                return
            message = answers[self.path](server)
            self._send(200, json_format.MessageToDict(message, preserving_proto_field_name=True))

        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            path = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
            try:
                if path is None:
                    raise FailureError(grpc.StatusCode.NOT_FOUND, "Malformed request: POST " + self.path)
                self._send(200, _predict_json(server, *path.groups(), data))
            except FailureError as failure:
                self._send(HTTP[failure.code], {"error": failure.message})

        def _send(self, status, content):
            data = json.dumps(content).encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    return Handler


def _invalid(message):
    return FailureError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _predict_json(server, name, version, data):
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _invalid(f"JSON Parse error: {error}") from error
    signature_name = body.get("signature_name", DEFAULT)
    infos = server.signature(name, version, signature_name).inputs
    rows = "instances" in body
    if rows == ("inputs" in body):
        raise _invalid("Missing 'inputs' or 'instances' key")
    if rows:
        instances = body["instances"]
        if not isinstance(instances, list) or not instances:
            raise _invalid("Request data format unknown: 'instances' must be a list that is not empty")
        if len(infos) == 1 and not _is_named(instances[0], infos):
            instances = [{next(iter(infos)): value} for value in instances]
        values = {key: [instance[key] for instance in instances] for key in instances[0]}
    else:
        values = body["inputs"]
        if len(infos) == 1 and not _is_named(values, infos):
            values = {next(iter(infos)): values}
    unknown = set(values) - set(infos)
    if unknown:
        raise _invalid(f"JSON object: does not have named input: {sorted(unknown)[0]}")
    inputs = {key: _to_array(value, tf.as_dtype(infos[key].dtype)) for key, value in values.items()}
    outputs = server.predict(name, version, signature_name, inputs)
    listed = listed_as_json(outputs)
    single = len(listed) == 1
    if not rows:
        return {"outputs": next(iter(listed.values())) if single else listed}
    if single:
        return {"predictions": next(iter(listed.values()))}
    count = len(next(iter(listed.values())))
    return {"predictions": [{key: value[row] for key, value in listed.items()} for row in range(count)]}


def listed_as_json(outputs):
    """Arrays by name as the columns of an answer."""
    return {key: _to_json(value, key) for key, value in outputs.items()}


def _is_named(value, infos):
    return isinstance(value, dict) and set(value) <= set(infos)


def _to_array(value, dtype):
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    flat = []
    _fill(value, 0, shape, dtype, flat)
    kind = object if dtype == tf.string else dtype.as_numpy_dtype
    return np.array(flat, kind).reshape(shape)


def _fill(value, level, shape, dtype, flat):
    if isinstance(value, list):
        if level >= len(shape) or len(value) != shape[level]:
            raise _invalid(f"Encountered list at unexpected size: {len(value)} at level: {level}")
        for one in value:
            _fill(one, level + 1, shape, dtype, flat)
    elif dtype == tf.string:
        is_binary = isinstance(value, dict) and set(value) == {"b64"}
        if not is_binary and not isinstance(value, str):
            raise _invalid(f"JSON Value: {value} is not of expected type: string")
        flat.append(base64.b64decode(value["b64"]) if is_binary else value.encode())
    else:
        allowed = (int, float) if dtype.is_floating else int
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise _invalid(f"JSON Value: {value} Type: Number is not of expected type: {dtype.name}")
        flat.append(value)


def _to_json(value, name):
    if value.dtype != object:
        return value.tolist() if value.dtype.kind != "f" else value.astype(np.float64).tolist()
    if name.endswith("_bytes"):
        return _map(lambda one: {"b64": base64.b64encode(one).decode()}, value.tolist())
    return _map(lambda one: one.decode(), value.tolist())


def _map(function, value):
    return [_map(function, one) for one in value] if isinstance(value, list) else function(value)


def main(export_dir):
    version_dir = find_saved_model(Path(export_dir))
    with Server(version_dir).running(8501, 8500) as (url, address):
        print(f"{url} and {address} serve {version_dir}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    # Beside tests/ lies what is tested.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tfseg.model_dir import find_saved_model

    main(*sys.argv[1:])
