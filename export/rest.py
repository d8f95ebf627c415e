"""An exported model behind the REST interface of TensorFlow Serving, called with the standard library."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from tfseg.errors import InputError

_SIGNATURE = "serving_default"


class RestModel:
    """A model on a server; the same two members as `tfseg.inference.networks.SavedModelNetwork`.

    Args:
        url: As in `http://host:8501/v1/models/tfseg`, or with `/versions/N`.
        timeout: Seconds to wait for each answer.

    Attributes:
        image_size: Side of the square that the network takes, pixels.

    Raises:
        InputError: If nobody answers, or what answers is no such model.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InputError(f"--url={url}: must start with http:// or https://")
        self._url = url.rstrip("/")
        self._timeout = timeout
        self.image_size = self._read_image_size()

    def probabilities(self, square: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
        """Asks where labels are in one image.

        Args:
            square: uint8 `[S, S, 3]`.
            labels: K ids.

        Returns:
            float32 `[K, S, S]`, foreground of the two-way softmax.

        Raises:
            InputError: If the server refuses or its answer is something else.
        """
        # Columns ("inputs") instead of rows; floats, for the server tells 7 from 7.0.
        image = square.astype(np.float64).tolist()
        inputs = {"image": [image] * len(labels), "label": list(labels)}
        url = f"{self._url}:predict"
        answer = self._call(url, {"signature_name": _SIGNATURE, "inputs": inputs})
        outputs = answer.get("outputs")
        # A single output stands there without its name.
        outputs = outputs.get("probability") if isinstance(outputs, dict) else outputs
        try:
            found = np.array(outputs, np.float32)
        except (TypeError, ValueError):
            found = np.zeros(0)
        expected = (len(labels), self.image_size, self.image_size)
        if found.shape != expected or not np.isfinite(found).all():
            raise InputError(
                f"{url}: answered shape {list(found.shape)}; needed are finite {list(expected)} probabilities"
            )
        return found

    def _read_image_size(self) -> int:
        url = f"{self._url}/metadata"
        content = self._call(url)
        try:
            signature = content["metadata"]["signature_def"]["signature_def"][_SIGNATURE]
            sizes = [int(dim["size"]) for dim in signature["inputs"]["image"]["tensor_shape"]["dim"]]
            if "label" not in signature["inputs"] or len(sizes) != 4 or sizes[1] != sizes[2] or sizes[1] < 1:
                raise ValueError(sizes)
            return sizes[1]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{url}: {_SIGNATURE} does not take image [B, S, S, 3] and label [B]; is this an export of "
                "this project?"
            ) from error

    def _call(self, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                content = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise InputError(f"{url}: the server answers {error.code}: {_reason(error)}") from error
        except TimeoutError as error:
            raise InputError(f"{url}: no answer within {self._timeout:g} seconds") from error
        except urllib.error.URLError as error:
            late = isinstance(error.reason, TimeoutError)
            reason = f"no answer within {self._timeout:g} seconds" if late else error.reason
            raise InputError(f"{url}: cannot be reached ({reason})") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(f"{url}: the answer is cut off or no JSON ({error!r})") from error
        if not isinstance(content, dict):
            raise InputError(f"{url}: the answer is no JSON object; is this TensorFlow Serving?")
        return content


def _reason(error: urllib.error.HTTPError) -> str:
    """Takes TensorFlow Serving's own words out of a refusal."""
    try:
        text = error.read(100_000).decode(errors="replace")
    except OSError:
        return error.reason
    try:
        return str(json.loads(text)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return error.reason
