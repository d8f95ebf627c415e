"""Segments images on a server of an export of tfseg. This file alone is enough, with NumPy and Pillow.

python client.py --url=http://HOST:8501/v1/models/NAME --image=FILE --output=MASK.png
python client.py --grpc=HOST:8500 --model_name=NAME --output_dir=DIR FILE ...
python client.py --model=EXPORT_DIR --image=FILE --label=dog --label=cat --output=MASK.png

Without --label the server predicts the labels. `--grpc` needs tensorflow-serving-api, `--model` TensorFlow.
"""

import argparse
import base64
import http.client
import io
import json
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

SOME_REFUSED = 1
"""Exit status when images could not be read or were refused; all others were segmented."""
BAD_CALL = 2
"""Exit status when the server cannot be reached, or the call itself is wrong."""
RETRIES = 3
_MAX_PIXELS = 178_956_970  # Pillow's own; the server allows fewer.


class ClientError(Exception):
    """What went wrong, in one sentence for people."""


class RefusedError(ClientError):
    """The server refused a request as it stands: INVALID_ARGUMENT.

    Attributes:
        row: Number of the row that it names, from 0; None if it names none.
    """

    def __init__(self, message: str) -> None:
        words = re.search(r"assertion failed: \[(.*?)\](?=\s|$)", message, re.DOTALL)
        named = re.search(r"row (\d+): (.*)", words[1] if words else message, re.DOTALL)
        self.row = int(named[1]) if named else None
        text = named[2] if named else (words[1] if words else message)
        super().__init__(_unescape(" ".join(text.split())[:1000]))


def _unescape(text: str) -> str:
    """Undoes what TensorFlow does in its messages to text that is not ASCII: three octal digits a byte."""
    data = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text.encode())
    return re.sub(r"\\(['\"])", r"\1", data.decode(errors="replace"))


class UnavailableError(ClientError):
    """The server cannot answer now: UNAVAILABLE. The only reason to try again."""


class Found(NamedTuple):
    """The answer for one image.

    Attributes:
        labels: Label ids that were looked for.
        names: Their names.
        scores: Their probabilities; None where labels were given.
        mask: uint8 `[H, W]`, label ids, 0 background.
    """

    labels: list[int]
    names: list[str]
    scores: list[float] | None
    mask: np.ndarray


class RestModel:
    """A model behind the REST interface.

    Args:
        url: As in `http://host:8501/v1/models/tfseg`, or with `/versions/N` or `/labels/NAME`.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"--url={url}: must be as in http://HOST:8501/v1/models/NAME")
        self._url, self._parts = url.rstrip("/"), parts

    def predict(self, signature: str, inputs: dict[str, list], deadline: float) -> dict[str, Any]:
        """Calls a signature; strings may be bytes, nested in lists.

        Args:
            signature: Its name.
            inputs: Columns by name.
            deadline: Of `time.monotonic()`.

        Returns:
            Columns by name.

        Raises:
            ClientError: `RefusedError`, `UnavailableError`, or anything else that went wrong.
        """
        body = json.dumps({"signature_name": signature, "inputs": _encode(inputs)})
        status, data = self._post(f"{self._parts.path.rstrip('/')}:predict", body.encode(), deadline)
        try:
            content = json.loads(data)
            error = content.get("error")
        except (ValueError, AttributeError):
            content, error = None, None
        if status != 200:
            words = error or f"{status} {http.client.responses.get(status, '')}"
            kind = {400: RefusedError, 503: UnavailableError}.get(status, ClientError)
            where = "" if kind is RefusedError else f"{self._url}: the server answers {status}: "
            raise kind(f"{where}{words}")
        if not isinstance(content, dict) or not isinstance(content.get("outputs"), dict):
            raise ClientError(
                f"{self._url}: the answer is not TensorFlow Serving's; is this the model's URL?"
            )
        return _decode(content["outputs"])

    def _post(self, path: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname, self._parts.port, timeout=_left(deadline))
        try:
            connection.connect()
            connected = connection.sock  # The connection forgets it, the answer does not.
            connected.settimeout(_left(deadline))
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            chunks = []
            while True:  # A server that sends a byte now and then must not outlast the deadline.
                connected.settimeout(_left(deadline))
                chunk = response.read1(1 << 20)
                if not chunk:
                    break
                chunks.append(chunk)
            data = b"".join(chunks)
            length = response.headers.get("Content-Length")
            if length is not None and len(data) != int(length):
                raise ClientError(f"{self._url}: the answer is cut off")
            return response.status, data
        except TimeoutError as error:
            raise ClientError(f"{self._url}: no answer in time; --timeout allows more") from error
        except ConnectionRefusedError as error:
            raise UnavailableError(f"{self._url}: nobody listens there ({error.strerror})") from error
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"{self._url}: cannot be reached ({error or type(error).__name__})") from error
        finally:
            connection.close()


class GrpcModel:
    """A model behind the gRPC interface; needs tensorflow-serving-api.

    Args:
        address: `host:port`.
        name: Of the model.
    """

    def __init__(self, address: str, name: str) -> None:
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ClientError("--grpc: pip install tensorflow-serving-api, or use --url (REST)") from error
        # 4 MiB is the default, and less than a photograph's answers may be.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc, self._address, self._name = grpc, address, name
        channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, signature: str, inputs: dict[str, list], deadline: float) -> dict[str, Any]:
        """Calls a signature; see `RestModel.predict`."""
        from tensorflow import make_ndarray, make_tensor_proto
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._name, signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=_left(deadline))
        except self._grpc.RpcError as error:
            code = self._grpc.StatusCode
            kinds = {code.INVALID_ARGUMENT: RefusedError, code.UNAVAILABLE: UnavailableError}
            kind = kinds.get(error.code(), ClientError)
            where = "" if kind is RefusedError else f"{self._address}: {error.code().name}: "
            raise kind(f"{where}{error.details()}") from error
        return {
            name: _texts(make_ndarray(tensor).tolist(), name) for name, tensor in response.outputs.items()
        }


class LocalModel:
    """An export on disk; needs TensorFlow.

    Args:
        path: A version directory, or the folder of versions, of which the newest is taken.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path)
        versions = [p.parent for p in folder.glob("*/saved_model.pb") if p.parent.name.isdecimal()]
        if not (folder / "saved_model.pb").is_file():
            folder = max(versions, key=lambda version: int(version.name), default=None)
        if folder is None:
            raise ClientError(f"{path}: holds no SavedModel; export.saved_model of tfseg writes one")
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ClientError("--model: pip install tensorflow, or ask a server (--url)") from error
        try:
            self._tf, self._loaded = tf, tf.saved_model.load(str(folder))
        except Exception as error:  # TensorFlow raises many kinds for damaged files.
            raise ClientError(f"{folder}: cannot be loaded as a SavedModel ({error})") from error

    def predict(self, signature: str, inputs: dict[str, list], deadline: float) -> dict[str, Any]:
        """Calls a signature; see `RestModel.predict`. Nothing here can be late."""
        del deadline
        if signature not in self._loaded.signatures:
            raise RefusedError(f'Serving signature key "{signature}" not found.')
        tensors = {name: self._tf.constant(value) for name, value in inputs.items()}
        try:
            outputs = self._loaded.signatures[signature](**tensors)
        except self._tf.errors.InvalidArgumentError as error:
            raise RefusedError(error.message) from error
        return {name: _texts(tensor.numpy().tolist(), name) for name, tensor in outputs.items()}


Model = RestModel | GrpcModel | LocalModel


def segment(
    model: Model, files: Sequence[bytes], labels: Sequence[str] = (), timeout: float = 60.0
) -> list[Found | RefusedError]:
    """Segments images; those that are refused do not stop the others.

    Args:
        model: Who answers.
        files: JPEG or PNG files; they travel in one request.
        labels: Names, aliases or ids as text; none to let the server predict them.
        timeout: Seconds for an answer, retries included.

    Returns:
        For each file the answer or the refusal.

    Raises:
        ClientError: If nothing can be answered.
    """
    results: list[Found | RefusedError | None] = [None] * len(files)
    waiting = list(range(len(files)))
    while waiting:
        try:
            answers = _call(model, [files[i] for i in waiting], labels, timeout)
        except RefusedError as refusal:
            if refusal.row is None or refusal.row >= len(waiting):
                raise
            if str(refusal).startswith("labels: "):
                raise  # The same for every row.
            results[waiting.pop(refusal.row)] = refusal
            continue
        for i, answer in zip(waiting, answers, strict=True):
            results[i] = answer
        break
    return results


def _call(model: Model, files: list[bytes], labels: Sequence[str], timeout: float) -> Iterator[Found]:
    signature, inputs = "segment", {"image_bytes": files}
    if labels:
        signature, inputs = "segment_labels", {**inputs, "labels": [list(labels)] * len(files)}
    try:
        outputs = retrying(lambda deadline: model.predict(signature, inputs, deadline), timeout)
    except ClientError as error:
        if "signature key" not in str(error).lower():
            raise
        advice = "name labels with --label: it was exported without a classifier"
        raise ClientError(
            f"the model has no signature {signature}; "
            + ("export it anew with this version of tfseg" if labels else advice)
        ) from error
    try:
        return iter([_found(outputs, row) for row in range(len(files))])
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise ClientError(
            f"the answer to {signature} is not that of an export of tfseg ({error!r})"
        ) from error


def retrying(call: Callable[[float], dict[str, Any]], timeout: float) -> dict[str, Any]:
    """Calls, and calls again while the server is unavailable: at most `RETRIES` times, within `timeout` s."""
    deadline = time.monotonic() + timeout
    for attempt in range(RETRIES + 1):
        try:
            return call(deadline)
        except UnavailableError:
            pause = 0.2 * 2**attempt
            if attempt == RETRIES or time.monotonic() + pause >= deadline:
                raise
            time.sleep(pause)
    raise AssertionError


def _found(outputs: dict[str, Any], row: int) -> Found:
    labels = [label for label in outputs["labels"][row] if label > 0]
    scores = outputs.get("scores")
    with Image.open(io.BytesIO(outputs["mask_bytes"][row])) as opened:
        mask = np.array(opened)
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"mask of type {mask.dtype} and shape {mask.shape}")
    names = outputs["names"][row][: len(labels)]
    return Found(labels, names, None if scores is None else scores[row][: len(labels)], mask)


def read_file(path: Path) -> tuple[bytes, Image.Image]:
    """Reads an image file.

    Returns:
        What is sent: the file itself if it is a JPEG or PNG that the server reads, else a PNG of it; and the
        picture as RGB, upright and on white.

    Raises:
        ClientError: If it is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path}: cannot be read: {error.strerror or error}") from error
    return prepare(data, str(path))


def prepare(data: bytes, name: str) -> tuple[bytes, Image.Image]:
    """As `read_file`, of the content of a file; `name` stands in messages."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            kind, mode, adobe = opened.format, opened.mode, "adobe" in opened.info
            picture = _on_white(ImageOps.exif_transpose(opened))
    except OSError as error:
        words = "it is damaged, or no image of a known format"
        raise ClientError(f"{name}: cannot be read: {words}") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files.
        raise ClientError(f"{name}: cannot be read ({error})") from error
    readable = kind in ("JPEG", "MPO", "PNG") and (mode != "CMYK" or adobe)
    return (data if readable else _png(picture)), picture


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image).astype(np.float64)
        levels = levels / 257 if levels.max(initial=0) > 255 else levels
        image = Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def palette() -> list[int]:
    """Returns PASCAL VOC's colours of 256 label ids: bit 3k + c of the id is a bit of channel c."""
    colors = []
    for label in range(256):
        for channel in range(3):
            bits = [(label >> (3 * k + channel)) & 1 for k in range(3)]
            colors.append(sum(bit << (7 - k) for k, bit in enumerate(bits)))
    return colors


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a mask as `encode_mask` does."""
    _write(path, encode_mask(mask))


def encode_mask(mask: np.ndarray) -> bytes:
    """Returns a palette PNG; pixel = label id."""
    image = Image.fromarray(mask, "L")
    image.putpalette(palette())  # Now of mode P.
    return _png(image)


def save_overlay(path: Path, picture: Image.Image, mask: np.ndarray) -> None:
    """Writes the picture tinted by label, with a light line around each."""
    pixels = np.asarray(picture, np.float32)
    colors = np.reshape(palette(), (-1, 3)).astype(np.float32)[mask]
    drawn = np.where(mask[..., None] > 0, 0.5 * pixels + 0.5 * colors, pixels)
    edge = np.zeros(mask.shape, bool)
    edge[1:] |= mask[1:] != mask[:-1]
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    drawn[edge] = 255
    _write(path, _png(Image.fromarray(drawn.astype(np.uint8))))


def _png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Writes a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _encode(value: Any) -> Any:
    """Writes bytes as TensorFlow Serving's JSON has them."""
    if isinstance(value, dict):
        return {name: _encode(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_encode(one) for one in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"])
    if isinstance(value, dict):
        return {name: _decode(one) for name, one in value.items()}
    return [_decode(one) for one in value] if isinstance(value, list) else value


def _texts(value: Any, name: str) -> Any:
    """Turns the bytes of tensors of text into text; names that end in `_bytes` hold bytes."""
    if isinstance(value, list):
        return [_texts(one, name) for one in value]
    return value.decode() if isinstance(value, bytes) and not name.endswith("_bytes") else value


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="client.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars=None,
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="image files; --image is the same")
    add("--image", action="append", default=[], help="image file; may stand several times")
    add("--label", action="append", default=[], help="name or id; may stand several times [predicted]")
    add("--output", help="mask to write, for one image: a palette PNG, pixel = label id")
    add("--output_dir", help="folder of the masks, for several images: NAME.png")
    add("--overlay", action="store_true", help="also write NAME.overlay.png: the image tinted by label")
    add("--url", help="REST, as in http://localhost:8501/v1/models/tfseg")
    add("--grpc", metavar="HOST:PORT", help="gRPC, as in localhost:8500")
    add("--model_name", default="tfseg", help="with --grpc: name of the model [tfseg]")
    add("--model", help="an export on disk: a version, or the folder of versions")
    add("--timeout", type=float, default=60.0, help="seconds for each answer, retries included [60]")
    add("--batch_size", type=int, default=4, help="images of one request [4]")
    add("--label_map", help="not needed any more: the server knows the names")
    add("--background_factor", type=float, help="not here any more: export.saved_model decides it")
    return parser


def _options(argv: Sequence[str]) -> argparse.Namespace:
    words = []
    for word in argv:
        if word.startswith("--flagfile="):
            lines = Path(word.removeprefix("--flagfile=")).read_text().splitlines()
            words += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        else:
            words.append(word)
    options = _parser().parse_args(words)
    options.files = [Path(file) for file in (*options.image, *options.files)]
    if sum(map(bool, (options.model, options.url, options.grpc))) != 1:
        raise ClientError("give one of --url, --grpc and --model")
    if not options.files:
        raise ClientError("no image given; name files, or --image=FILE")
    if bool(options.output) == bool(options.output_dir):
        raise ClientError("give one of --output and --output_dir")
    if options.output and len(options.files) > 1:
        raise ClientError(
            f"--output names one mask, and {len(options.files)} images are given; use --output_dir"
        )
    if options.background_factor is not None:
        raise ClientError("--background_factor is decided by the export: export.saved_model of tfseg has it")
    if not options.timeout > 0 or options.batch_size < 1:
        raise ClientError("--timeout must be above 0 and --batch_size 1 or more")
    return options


def _targets(options: argparse.Namespace) -> list[Path]:
    """Names the masks, numbered where several images have one name."""
    if options.output:
        return [Path(options.output)]
    taken: set[str] = set()
    targets = []
    for file in options.files:
        name, number = file.stem, 1
        while name in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name)
        targets.append(Path(options.output_dir) / f"{name}.png")
    return targets


def _run(options: argparse.Namespace) -> int:
    if options.url:
        model = RestModel(options.url)
    else:
        model = GrpcModel(options.grpc, options.model_name) if options.grpc else LocalModel(options.model)
    failed = 0
    jobs = list(zip(options.files, _targets(options), strict=True))
    for start in range(0, len(jobs), options.batch_size):
        batch = []
        for file, target in jobs[start : start + options.batch_size]:
            try:
                batch.append((file, target, *read_file(file)))
            except ClientError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
        sent = [data for _, _, data, _ in batch]
        results = segment(model, sent, options.label, options.timeout) if batch else []
        for (file, target, _, picture), result in zip(batch, results, strict=True):
            if isinstance(result, RefusedError):
                failed += 1
                print(f"error: {file}: refused: {result}", file=sys.stderr)
                continue
            save_mask(target, result.mask)
            if options.overlay:
                save_overlay(target.with_suffix(".overlay.png"), picture, result.mask)
            print(f"{file}: {_summary(result)}: {target}")
    return SOME_REFUSED if failed else 0


def _summary(found: Found) -> str:
    words = []
    for index, (label, name) in enumerate(zip(found.labels, found.names, strict=True)):
        score = "" if found.scores is None else f", probability {found.scores[index]:.2f}"
        words.append(f"{name} {100 * float((found.mask == label).mean()):.1f} %{score}")
    return "; ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    try:
        return _run(_options(sys.argv[1:] if argv is None else argv))
    except ClientError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return BAD_CALL
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return BAD_CALL
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
