"""What the page asks of a model: labels, maps of an image, and masks at any threshold."""

import base64
import collections
import itertools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tfseg.data.images import read_image
from tfseg.data.voc_colors import encode_indexed_png, palette
from tfseg.errors import InputError
from tfseg.inference import pictures
from tfseg.inference.postprocessing import merge
from tfseg.inference.segmenter import Segmentation, Segmenter

SIDE = 640
"""Longest side of the pictures, pixels."""
KEPT = 2
"""Results whose threshold can still be changed; a result holds 4 bytes for each pixel and label."""
MAX_LABELS = 8
"""Labels of one run, which bounds its memory."""


class _Result(NamedTuple):
    found: Segmentation
    image: np.ndarray  # uint8 [h, w, 3], at the size of the pictures.
    probabilities: np.ndarray  # float32 [K, h, w].


class Answers:
    """Segments images and remembers what it found, so that another threshold needs no run of the network.

    ```python
    answers = Answers(Segmenter.load("runs/demo/model"))
    found = answers.segment(Path("cat.jpg").read_bytes(), "cat.jpg", labels=())
    answers.mask(found["result"], threshold=0.3)["shares"]
    ```

    Args:
        segmenter: Used by one thread at a time.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._network = threading.Lock()
        self._numbers = itertools.count(1)
        self._results: collections.OrderedDict[str, _Result] = collections.OrderedDict()

    def model(self) -> dict[str, Any]:
        """Returns the name of the label map, its labels, and whether labels may be left out."""
        label_map, colors = self._segmenter.label_map, palette().tolist()
        return {
            "name": label_map.name,
            "labels": [
                {"id": one.id, "name": one.name, "domain": one.domain, "color": colors[one.id % 256]}
                for one in label_map.labels
            ],
            "predicts": self._segmenter.can_predict_labels,
            "max_labels": MAX_LABELS,
        }

    def segment(self, data: bytes, name: str, labels: Sequence[int]) -> dict[str, Any]:
        """Runs the network on an image file.

        Args:
            data: The bytes of the file.
            name: What error messages call it.
            labels: Ids to look for; empty to predict them.

        Returns:
            `result`, the key for `mask`; `width` and `height` of the image; and for each label its `id`, the
            classifier's `score` or None, and `pictures`, captions with addresses that hold the picture.

        Raises:
            InputError: If the image cannot be read or is too large, as for `tfseg.predict`, or there are
                too many labels, or none and no classifier.
        """
        if len(labels) > MAX_LABELS:
            raise InputError(f"{len(labels)} labels are chosen; allowed are {MAX_LABELS} at once")
        image = read_image(data, name=name)
        with self._network:
            found = self._segmenter.segment(image, labels or None)
            key = str(next(self._numbers))
            shown = pictures.fit(image, min(SIDE, max(image.shape[:2])))
            probabilities = np.stack([_resized(one, shown.shape) for one in found.probabilities])
            self._results[key] = _Result(found, shown, probabilities)
            while len(self._results) > KEPT:
                self._results.popitem(last=False)
        height, width = image.shape[:2]
        described = [self._describe(self._results[key], k) for k in range(len(found.labels))]
        return {"result": key, "name": name, "width": width, "height": height, "labels": described}

    def mask(self, key: str, threshold: float) -> dict[str, Any]:
        """Returns the overlay of a result's mask as an address, and each label's share of the image.

        Raises:
            InputError: If the result is no longer kept, or the threshold is not in 0 to 1.
        """
        result = self._result(key, threshold)
        label_map = merge(result.probabilities, result.found.labels, threshold=threshold)
        shares = {str(label): float((label_map == label).mean()) for label in result.found.labels}
        return {"overlay": _address(pictures.overlay(result.image, label_map)), "shares": shares}

    def mask_file(self, key: str, threshold: float) -> bytes:
        """Returns the mask at the image's own size, a PNG file of label ids as `tfseg.predict` writes it.

        Raises:
            InputError: As for `mask`.
        """
        found = self._result(key, threshold).found
        return encode_indexed_png(merge(found.probabilities, found.labels, threshold=threshold))

    def _result(self, key: str, threshold: float) -> _Result:
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold {threshold}: must be in 0 to 1")
        result = self._results.get(key)
        if result is None:
            raise InputError("this result is no longer kept: segment the image again")
        return result

    def _describe(self, result: _Result, k: int) -> dict[str, Any]:
        found, drawn = result.found, {}
        if found.attention is not None and found.densified is not None:
            for caption, maps in (("attention", found.attention), ("densified attention", found.densified)):
                drawn[caption] = pictures.heat(result.image, maps[k], fit=found.image_fit)
        drawn["probability"] = pictures.grey(result.probabilities[k])
        label, scores = found.labels[k], found.label_probabilities
        return {
            "id": label,
            "score": None if scores is None else float(scores[label - 1]),
            "pictures": [[caption, _address(picture)] for caption, picture in drawn.items()],
        }


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Brings float32 `[H, W]` to the size of a picture, by area, so that nothing overshoots."""
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def _address(picture: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(pictures.encode_png(picture)).decode()}"
