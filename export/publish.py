"""Writes one version of an export, whole or not at all, and holds it to the Keras model."""

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.files import sync_directory, write_atomic
from tfseg.folders import remove_dead, workspace
from tfseg.inference.postprocessing import from_square, scale_background
from tfseg.inference.preprocessing import to_square
from tfseg.model_dir import ModelDir

from . import contract, manifest, warmup
from .signatures import Endpoints, Options

TOLERANCE = 1e-5
"""Largest allowed difference between a probability of the reloaded export and of the Keras model."""
_UNFINISHED = r"\.tmp-\d+(-(?P<pid>\d+))?"  # With the number of the process as older versions wrote them.
_CONTENTS = r"saved_model\.pb|fingerprint\.pb|variables|assets|assets\.extra"


class Agreement(NamedTuple):
    """How a reloaded export differs from the Keras model.

    Attributes:
        difference: Largest absolute difference of a probability.
        mask_agreement: Share of mask pixels that are the same, 0 to 1.
        mask_iou: Foreground of both masks, intersection over union; 1 where neither has any.
    """

    difference: float
    mask_agreement: float
    mask_iou: float


def export_model(
    directory: ModelDir,
    model: keras.Model,
    classifier: keras.Model | None,
    version_dir: Path,
    options: Options = Options(),  # noqa: B008  frozen
    weights_dtype: Literal["float32", "float16"] = "float32",
) -> Agreement:
    """Writes one version; `export.contract` says what its signatures take and give.

    In `assets.extra` lie `export.json` (meanings, limits, units), `labels.json`, the warm-up requests and
    `files.json` (sizes and checksums).

    Args:
        directory: Configuration and labels.
        model: Segmentation network in float32; half precision would be baked into the graph.
        classifier: Whole-image classifier, or None.
        version_dir: Folder to make; its name is the version.
        options: What the export decides for its clients.
        weights_dtype: `float16` halves the size; the graph still computes in float32.

    Returns:
        How the reloaded export differs from the Keras model.

    Raises:
        InputError: If the version exists, or a float32 export differs by more than `TOLERANCE`.
    """
    remove_dead(version_dir.parent, _UNFINISHED, _CONTENTS)
    with workspace(version_dir.with_name(f".tmp-{version_dir.name}")) as temporary:
        if version_dir.exists():
            raise InputError(f"{version_dir}: exists; versions are never overwritten, give another --version")
        endpoints = _write(directory, model, classifier, temporary, options, weights_dtype)
        agreement = agreement_of(temporary, model, directory, options)
        exact = weights_dtype == "float32"
        if not agreement.difference <= (TOLERANCE if exact else 1.0):
            raise InputError(
                f"the export differs from the Keras model by {agreement.difference:.1e}, above "
                f"{TOLERANCE:.0e}; nothing was written"
            )
        has_classifier = classifier is not None
        described = contract.describe(
            directory.name, directory.config, endpoints.max_side, directory.label_map, options, has_classifier
        )
        _write_descriptions(
            temporary / "assets.extra", directory.label_map, described, weights_dtype, agreement
        )
        warmup.record(temporary, directory.label_map.num_labels, options.image_dtype)
        manifest.write(temporary)
        _sync_tree(temporary)
        temporary.rename(version_dir)
        sync_directory(version_dir.parent)
    return agreement


def next_version(output_dir: Path) -> int:
    """Returns one more than the highest version in a directory, 1 for an empty one."""
    names = [path.name for path in output_dir.iterdir()] if output_dir.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0) + 1


def agreement_of(version_dir: Path, model: keras.Model, directory: ModelDir, options: Options) -> Agreement:
    """Runs `serving_default` and the Keras model on noise of the network's size and on a picture of another.

    The Keras model is followed by Pillow's resampling, so that the graph's is held to it as well.
    """
    labels = np.unique(np.linspace(1, directory.label_map.num_labels, 4).astype(np.int32))
    size, fit = directory.config.image_size, directory.config.image_fit
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    serve = tf.saved_model.load(str(version_dir)).signatures["serving_default"]
    difference, same, both, either, pixels = 0.0, 0, 0, 0, 0
    for image in (noise, warmup.sample_image()):
        inputs = {
            "image": np.repeat(image[None], len(labels), 0).astype(options.image_dtype),
            "label": labels,
        }
        answer = warmup.call(serve, inputs)
        square = np.repeat(to_square(image, size, fit)[None], len(labels), 0).astype(np.float32)
        plain = foreground_probability(model({"image": square, "label": labels}, training=False)).numpy()
        expected = from_square(plain, *image.shape[:2], fit=fit).clip(0, 1)
        halved = scale_background(plain, options.background_factor)
        halved = from_square(halved, *image.shape[:2], fit=fit).clip(0, 1)
        difference = max(difference, float(np.abs(answer["probability"] - expected).max()), key=_worst)
        found, wanted = answer["mask"] > 0, halved > 0.5
        same, pixels = same + int((found == wanted).sum()), pixels + found.size
        both, either = both + int((found & wanted).sum()), either + int((found | wanted).sum())
    return Agreement(difference, same / pixels, both / either if either else 1.0)


def foreground_probability(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns softmax foreground of a network's outputs, float32 `[B, S, S]`."""
    return tf.nn.softmax(outputs["mask_logits"])[..., 1]


def _worst(difference: float) -> float:
    return np.inf if np.isnan(difference) else difference


def _write(
    directory: ModelDir,
    model: keras.Model,
    classifier: keras.Model | None,
    path: Path,
    options: Options,
    weights_dtype: str,
) -> Endpoints:
    networks = [network for network in (model, classifier) if network is not None]
    variables = [variable for network in networks for variable in network.weights]
    half_weights = None
    if weights_dtype == "float16":
        half_weights = [(v, _half(v)) for v in variables if v.dtype == "float32"]
        variables = [half for _, half in half_weights]
    endpoints = Endpoints(model, classifier, directory.config, directory.label_map, options, half_weights)
    # keras.export.ExportArchive would write each variable twice, and in another order each time. A session
    # restores TensorFlow's variables, not those of Keras around them.
    module = tf.Module()
    module.weights = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    signatures = {}
    for name, (function, traced) in endpoints.functions().items():
        setattr(module, name, function)
        signatures[name] = traced
    tf.saved_model.save(module, str(path), signatures)
    return endpoints


def _write_descriptions(
    folder: Path, label_map: LabelMap, described: dict[str, Any], weights_dtype: str, agreement: Agreement
) -> None:
    weights = {"dtype": weights_dtype, "compared_with_keras": agreement._asdict()}
    _write_json(folder / "labels.json", label_map.to_dict())
    _write_json(folder / contract.FILE, {**described, "weights": weights})


def _half(variable: keras.Variable) -> tf.Variable:
    values = np.asarray(variable.value)
    largest = np.finfo(np.float16).max
    if not np.abs(values).max() <= largest:
        raise InputError(
            f"{variable.path}: holds values that float16 cannot; export with --weights_dtype=float32"
        )
    return tf.Variable(values.astype(np.float16), trainable=False, name=variable.name)


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def _sync_tree(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
