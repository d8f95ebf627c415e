"""TensorFlow Serving's REST interface as its documentation describes it, with a network of ours behind it."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

NAME = "/v1/models/tfseg"


def metadata(size):
    def tensor(dtype, *dims):
        dims = [{"size": str(dim), "name": ""} for dim in dims]
        return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x:0"}

    signature = {
        "inputs": {"image": tensor("DT_FLOAT", -1, size, size, 3), "label": tensor("DT_INT32", -1)},
        "outputs": {"probability": tensor("DT_FLOAT", -1, size, size)},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": "tfseg", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


class FakeServing:
    """Attributes can be changed between calls: `answer` replaces what :predict says."""

    def __init__(self, network):
        self.network = network
        self.metadata = metadata(network.image_size)
        self.answer = None
        self.delay = 0.0
        self.requests = []

    def predict(self, body):
        """Returns (status, JSON or bytes)."""
        if body.get("signature_name") != "serving_default":
            return 400, {"error": f"Signature not found: {body.get('signature_name')}"}
        inputs = body["inputs"]
        labels = inputs["label"]
        if not all(type(label) is int for label in labels):
            return 400, {"error": "JSON Value: is not of type int32"}
        image = np.array(inputs["image"])
        size = self.network.image_size
        if image.shape != (len(labels), size, size, 3) or image.dtype != np.float64:
            return 400, {"error": f"bad shape or dtype: {image.shape} {image.dtype}"}
        found = self.network.locate(image.astype(np.float32), range(len(labels)), labels)
        # One output only: TensorFlow Serving leaves its name out.
        return 200, {"outputs": [x.probability.astype(float).tolist() for x in found]}

    @contextlib.contextmanager
    def running(self):
        """Yields the model's URL."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == f"{NAME}/metadata":
                    self._send(200, fake.metadata)
                else:
                    self._send(404, {"error": "Servable not found for request: Latest(nobody)"})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append((self.path, body))
                if fake.delay:
                    time.sleep(fake.delay)
                if self.path != f"{NAME}:predict":
                    self._send(404, {"error": "Malformed request"})
                else:
                    self._send(*(fake.answer or fake.predict(body)))

            def _send(self, status, content):
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{NAME}"
        finally:
            server.shutdown()
            server.server_close()
