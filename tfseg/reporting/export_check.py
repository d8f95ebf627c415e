"""Does an export give what the Keras model gives, on a real image?"""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.inference.geometry import to_square
from tfseg.segmenter import find_saved_model

TOLERANCE = 1e-5
"""Largest difference of probabilities that the same weights may show."""


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """Outcome of `check_export`.

    Attributes:
        path: The version directory.
        square: uint8 `[S, S, 3]`, the network's input.
        exported: float32 `[S, S]`, foreground probability by the export.
        expected: float32 `[S, S]`, by the Keras model.
        difference: Largest absolute difference of the two.
    """

    path: Path
    square: np.ndarray
    exported: np.ndarray
    expected: np.ndarray
    difference: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within `TOLERANCE`."""
        return self.difference <= TOLERANCE


def check_export(export_dir: Path, model: keras.Model, image: np.ndarray, label: int) -> ExportCheck:
    """Loads an export without any code of its model and calls `serving_default`.

    Args:
        export_dir: A SavedModel, or the folder of versions, of which the newest is taken.
        model: The segmentation network that was exported.
        image: uint8 `[H, W, 3]`.
        label: Id of the label to look for.

    Raises:
        InputError: If there is no SavedModel, or it takes other inputs.
    """
    path = find_saved_model(export_dir)
    if path is None:
        raise InputError(f"{export_dir}: holds no SavedModel; python -m export.saved_model writes one")
    square = to_square(image, model.inputs[0].shape[1])
    inputs = {
        "image": tf.constant(square[None], tf.float32),
        "label": tf.constant([label], tf.int32),
    }
    loaded = tf.saved_model.load(str(path))
    try:
        exported = loaded.signatures["serving_default"](**inputs)["probability"].numpy()[0]
    except (KeyError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: serving_default is not that of this model: {reason}") from error
    logits = model(inputs, training=False)["mask_logits"]
    expected = tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()[0, ..., 1]
    return ExportCheck(path, square, exported, expected, float(np.abs(exported - expected).max()))
