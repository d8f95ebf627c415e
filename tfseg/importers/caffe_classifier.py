"""The authors' separate classifier (SPEC 7, step 2) from its .caffemodel.

Its prototxt was never released. What is known is its kind: VGG-16's convolutions, then three more
layers with weights. These are taken in the file's order as fc6, fc7 and score, whatever their
names; each may be a convolution or, with the same numbers, an InnerProduct over C, H, W.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.importers.caffe import Layers, assign, infer_encoder_blocks, open_layers

_HEAD = ("fc6", "fc7", "score")


def import_classifier(
    path_or_layers: str | os.PathLike[str] | Layers, model: keras.Model, config: ModelConfig
) -> None:
    """Sets every weight of a whole-image classifier from a .caffemodel.

    The file's fc6 sees features as they are, ours sees them times `config.feature_scale`; its
    weight is divided by that factor.

    Args:
        path_or_layers: The file, or what `load_caffemodel` returned for it.
        model: What `tfseg.models.build_classifier(config)` returned.
        config: Its configuration.

    Raises:
        InputError: If a layer is missing, left over or of another shape; names it and both shapes.
    """
    layers, origin = open_layers(path_or_layers)
    head = model.get_layer("classifier_head")
    names = _head_names(layers, origin)
    targets = {layer.name: layer for layer in model.get_layer("encoder").layers if layer.weights}
    for caffe_name, name in zip(names, _HEAD, strict=True):
        targets[caffe_name] = head.get_layer(name)
        kernel = tuple(targets[caffe_name].kernel.shape)
        layers[caffe_name] = _as_convolution(layers[caffe_name], kernel)
    assign(layers, targets, origin, {names[0]: lambda weight: weight / config.feature_scale})


def infer_classifier_config(
    layers: Layers, base: ModelConfig | None = None, origin: str = "the Caffe layers"
) -> ModelConfig:
    """Reads the shape of the classifier off its blobs.

    Args:
        layers: What `load_caffemodel` returned.
        base: Configuration of the network that the classifier goes with, of which only the
            classifier's width changes. By default a network of the authors' kind, for the image
            size at which fc6 leaves a 4x4 map, as in the authors' 320x320.
        origin: The file's name, for errors.

    Raises:
        InputError: If layers are missing or left over, or the shapes contradict each other.
    """
    blocks = infer_encoder_blocks(layers, origin)
    fc6, fc7, score = (_rows(layers[name][0]) for name in _head_names(layers, origin))
    if base is not None:
        return base.replace(classifier_units=len(fc6))
    side = math.isqrt(fc6.shape[1] // blocks[-1][1])
    if side**2 * blocks[-1][1] != fc6.shape[1] or fc7.shape != (len(fc6), len(fc6)):
        raise InputError(
            f"{origin}: the classifier's layers are {fc6.shape}, {fc7.shape} and {score.shape} "
            f"(outputs, inputs), expected (U, {blocks[-1][1]} k k), (U, U) and (labels, U)"
        )
    try:
        return ModelConfig(
            image_size=2 * (side + 3) * 2 ** (len(blocks) - 1),
            num_labels=len(score),
            encoder_blocks=blocks,
            classifier_units=len(fc6),
        )
    except InputError as error:
        raise InputError(f"{origin}: its shapes make no network: {error}") from error


def is_classifier(layers: Mapping[str, object]) -> bool:
    """Tells the classifier's file from a TransferNet's, which attends to labels."""
    return "cls_embed" not in layers and "feat_embed" not in layers


def _head_names(layers: Layers, origin: str) -> list[str]:
    names = [name for name in layers if not re.fullmatch(r"conv\d+_\d+", name)]
    if len(names) != len(_HEAD):
        raise InputError(
            f"{origin}: besides conv1_1, conv1_2, ... it has the layers {', '.join(names) or 'none'}; "
            "a classifier has three: fc6, fc7 and the scores"
        )
    return names


def _rows(weight: np.ndarray) -> np.ndarray:
    """Flattens a weight to (outputs, inputs)."""
    if weight.ndim == 4 and weight.shape[:2] == (1, 1):
        weight = weight[0, 0]
    return weight.reshape(len(weight), -1)


def _as_convolution(blobs: Sequence[np.ndarray], kernel: tuple[int, ...]) -> Sequence[np.ndarray]:
    """Reshapes an InnerProduct's weight where its size is right; `assign` refuses any other."""
    height, width, inputs, outputs = kernel
    rows = _rows(blobs[0])
    if blobs[0].shape[2:] == (height, width) or rows.shape != (outputs, inputs * height * width):
        return blobs
    return [rows.reshape(outputs, inputs, height, width), *blobs[1:]]
