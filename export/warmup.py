"""Warm-up requests: one call of each signature with the answer it had, as TensorFlow Serving reads them.

`assets.extra/tf_serving_warmup_requests` is a TFRecord of `PredictionLog`. A server replays the requests
before it takes others, and passes over the answers; `export.verify` compares them.
"""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from tfseg.commands import called
from tfseg.errors import InputError

FILE = "tf_serving_warmup_requests"


class Call(NamedTuple):
    """One recorded call.

    Attributes:
        signature: Its name.
        inputs: Tensors by name.
        outputs: The answer, by name.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def sample_image(height: int = 96, width: int = 128) -> np.ndarray:
    """Draws a picture, uint8 `[H, W, 3]`: a bright disc and a dark bar on a slope of colours."""
    y, x = np.mgrid[0:height, 0:width]
    slope = np.stack([255 * x / width, 255 * y / height, 255 - 127 * x / width], axis=-1)
    disc = (y - 0.4 * height) ** 2 + (x - 0.6 * width) ** 2 < (0.25 * height) ** 2
    slope[disc] = (240, 220, 40)
    slope[(y > 0.75 * height) & (x < 0.5 * width)] = (20, 30, 60)
    return slope.astype(np.uint8)


def sample_inputs(num_labels: int, image_dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Returns inputs for every signature."""
    image = sample_image()[None]
    files = np.array([_png(sample_image()), _png(sample_image(80, 60))], object)
    last = num_labels
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(files[0])
    example.features.feature["image/labels"].int64_list.value.extend(sorted({1, last}))
    either = image.astype(image_dtype)
    label = np.array([last], np.int32)
    return {
        "serving_default": {"image": either, "label": label},
        "pixels": {"image": image, "label": label},
        "labels": {"image": image, "labels": np.array([[1, last, -1]], np.int32)},
        "attention": {"image": image, "label": label},
        "bytes": {"image_bytes": files, "label": np.array([1, last], np.int32)},
        "segment": {"image_bytes": files},
        "segment_labels": {"image_bytes": files, "labels": np.array([["1", str(last)], ["1", ""]], object)},
        "classify": {"image": either},
        "examples": {"examples": np.array([example.SerializeToString(deterministic=True)], object)},
    }


def call(
    function: tf.types.experimental.ConcreteFunction, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Calls a loaded signature."""
    answer = function(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: tensor.numpy() for name, tensor in answer.items()}


def record(version_dir: Path, num_labels: int, image_dtype: str) -> list[Call]:
    """Calls every signature of an export once and stores requests and answers in it."""
    signatures = tf.saved_model.load(str(version_dir)).signatures
    samples = sample_inputs(num_labels, image_dtype)
    calls = [Call(name, samples[name], call(signatures[name], samples[name])) for name in sorted(signatures)]
    with tf.io.TFRecordWriter(str(version_dir / "assets.extra" / FILE)) as writer:
        for one in calls:
            writer.write(_prediction_log(one).SerializeToString(deterministic=True))
    return calls


def read(version_dir: str | os.PathLike[str]) -> Iterator[Call]:
    """Yields the recorded calls of an export.

    Raises:
        InputError: If there are none, or the file is damaged.
    """
    path = Path(version_dir) / "assets.extra" / FILE
    if not path.is_file():
        raise InputError(f"{path}: is missing; export anew with {called('export.saved_model')}")
    try:
        for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(data).predict_log
            inputs, outputs = (
                {name: tf.make_ndarray(tensor) for name, tensor in side.items()}
                for side in (log.request.inputs, log.response.outputs)
            )
            yield Call(log.request.model_spec.signature_name, inputs, outputs)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({str(error).splitlines()[0]})") from error


def _prediction_log(one: Call) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    for spec in (log.predict_log.request.model_spec, log.predict_log.response.model_spec):
        spec.name, spec.signature_name = "tfseg", one.signature
    for name, value in sorted(one.inputs.items()):
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    for name, value in sorted(one.outputs.items()):
        log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()
