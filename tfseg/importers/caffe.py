"""The authors' Caffe weights in our Keras models: which blob is which weight, in which layout.

Nothing but the blobs is needed; the shape of the network follows from theirs (`infer_config`).
Layouts are those of SPEC 3.6:

    Convolution    (O, I, kh, kw)      -> Conv2D           (kh, kw, I, O)
    Deconvolution  (I, O, kh, kw)      -> Conv2DTranspose  (kh, kw, O, I)
    InnerProduct   (out, in)           -> Dense            (in, out)
    feat_embed     (out, C * H * W)    -> Dense            (H * W * C, out)

`conv1_1` keeps its input channels in the order B, G, R: the model turns RGB round itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import keras
import numpy as np

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.importers.caffemodel import load_caffemodel

__all__ = [
    "assign",
    "import_transfernet",
    "infer_config",
    "infer_encoder_blocks",
    "load_caffemodel",
    "open_layers",
]

Layers = Mapping[str, Sequence[np.ndarray]]

_CAFFE_NAMES = {"att_w": "att-w", "cls_score": "cls-score-voc-att", "seg_score": "seg-score"}
# The authors' deploy.prototxt does without these (SPEC 3.3).
_CLASSIFICATION_HEAD = ("ip1", "cls_score")


def import_transfernet(
    path_or_layers: str | os.PathLike[str] | Layers, model: keras.Model
) -> tuple[str, ...]:
    """Sets every weight of a TransferNet from a .caffemodel.

    All layers are checked before the first weight changes. A file whose layers `ip1` and
    `cls-score-voc-att` are both absent, as in weights for the authors' deploy.prototxt, is taken:
    the model then keeps the weights it has in its classification head, which only training needs.

    Args:
        path_or_layers: The file, or what `load_caffemodel` returned for it.
        model: What `tfseg.models.build_transfernet` returned, usually for `infer_config(layers)`.

    Returns:
        Names of the model's layers that the file does not hold and that are left as they were:
        `()` or `("ip1", "cls_score")`.

    Raises:
        InputError: If a layer is missing, left over or of another shape; names it and both shapes.
    """
    layers, origin = open_layers(path_or_layers)
    kept = tuple(_CLASSIFICATION_HEAD)
    if any(_caffe_name(name) in layers for name in kept):
        kept = ()
    targets = {_caffe_name(layer.name): layer for layer in _weighted_layers(model) if layer.name not in kept}
    side = model.get_layer("attention").input["features"].shape[1]

    def chw_to_hwc(weight: np.ndarray) -> np.ndarray:
        by_place = weight.reshape(len(weight), -1, side, side).transpose(0, 2, 3, 1)
        return by_place.reshape(weight.shape)

    assign(layers, targets, origin, {"feat_embed": chw_to_hwc})
    return kept


def infer_config(layers: Layers, origin: str = "the Caffe layers") -> ModelConfig:
    """Reads the shape of a TransferNet off its blobs.

    Encoder blocks follow from the names and widths of `convX_Y`, factors and labels from the
    embeddings, the image size from the number of positions that `att-w` scores, and whether
    `combined_embed` is there decides the reading of equation (4) (SPEC 12, line 1). What no blob
    shows is as in the authors' code: multiplicative gating, features times 0.004 and the training
    mean. Without `ip1` the classification head has the official number of units.

    Args:
        layers: What `load_caffemodel` returned.
        origin: The file's name, for errors.

    Returns:
        The configuration for `tfseg.models.build_transfernet`.

    Raises:
        InputError: If a layer is missing, or the shapes contradict each other.
    """
    blocks = infer_encoder_blocks(layers, origin)
    factors, inputs = _matrix_shape(layers, "feat_embed", origin)
    _, num_labels = _matrix_shape(layers, "cls_embed", origin)
    positions, _ = _matrix_shape(layers, "att-w", origin)
    map_size = math.isqrt(positions)
    channels = blocks[-1][1]
    if map_size**2 != positions:
        raise InputError(f"{origin}: layer 'att-w' scores {positions} positions, expected a square number")
    if inputs != channels * positions:
        raise InputError(
            f"{origin}: layer 'feat_embed' has {inputs} inputs, expected {channels * positions}: "
            f"{channels} channels of the last convolution times {positions} positions of 'att-w'"
        )
    units = ModelConfig().classification_units
    if "ip1" in layers:
        units, _ = _matrix_shape(layers, "ip1", origin)
    try:
        return ModelConfig(
            image_size=map_size * 2 ** (len(blocks) - 1),
            num_labels=num_labels,
            encoder_blocks=blocks,
            factors=factors,
            combined_embed="combined_embed" in layers,
            classification_units=units,
        )
    except InputError as error:
        raise InputError(f"{origin}: its shapes make no network: {error}") from error


def open_layers(
    path_or_layers: str | os.PathLike[str] | Layers,
) -> tuple[dict[str, Sequence[np.ndarray]], str]:
    """Returns the layers, in a dictionary that may be emptied, and what errors call their origin."""
    if isinstance(path_or_layers, Mapping):
        return dict(path_or_layers), "the Caffe layers"
    return dict(load_caffemodel(path_or_layers)), os.fspath(path_or_layers)


def infer_encoder_blocks(layers: Layers, origin: str) -> tuple[tuple[int, int], ...]:
    """Groups conv1_1, conv1_2, conv2_1, ... into (convolutions, channels) of each block.

    Raises:
        InputError: If one is missing, or the widths within a block differ.
    """
    widths: dict[tuple[int, int], int] = {}
    for name, blobs in layers.items():
        if match := re.fullmatch(r"conv([1-9]\d?)_([1-9]\d?)", name):
            if blobs[0].ndim != 4:
                raise InputError(
                    f"{origin}: layer {name!r} has a weight of shape {blobs[0].shape}, expected "
                    "(output channels, input channels, height, width)"
                )
            widths[int(match[1]), int(match[2])] = blobs[0].shape[0]
    depths = {block: sum(b == block for b, _ in widths) for block, _ in sorted(widths)}
    wanted = [
        (block, conv)
        for block in range(1, max(depths, default=1) + 1)
        for conv in range(1, depths.get(block, 1) + 1)
    ]
    for block, conv in wanted:
        if (block, conv) not in widths:
            raise _missing(f"conv{block}_{conv}", origin)
        if widths[block, conv] != widths[block, 1]:
            raise InputError(
                f"{origin}: layer 'conv{block}_{conv}' has {widths[block, conv]} channels, "
                f"expected {widths[block, 1]} like 'conv{block}_1'"
            )
    return tuple((depth, widths[block, 1]) for block, depth in depths.items())


def assign(
    layers: dict[str, Sequence[np.ndarray]],
    targets: Mapping[str, keras.layers.Layer],
    origin: str,
    prepare: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> None:
    """Sets the weights of Keras layers, or of none if anything does not fit.

    Args:
        layers: {Caffe name: [weight, bias]}; emptied on the way, so that the arrays can be freed.
        targets: {Caffe name: Keras layer with kernel and bias}.
        origin: The file's name, for errors.
        prepare: {Caffe name: function of the weight that comes before the change of layout}.

    Raises:
        InputError: If a layer is missing, left over or of another shape.
    """
    _check(layers, targets, origin)
    for name, layer in targets.items():
        blobs = zip(layers.pop(name), _caffe_shapes(layer), strict=True)
        weight, bias = (_without_legacy_axes(blob, shape) for blob, shape in blobs)
        if name in prepare:
            weight = prepare[name](weight)
        # One permutation serves both kinds of convolution.
        layer.set_weights([weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, bias])


def _check(layers: Layers, targets: Mapping[str, keras.layers.Layer], origin: str) -> None:
    problems = []
    for name, layer in targets.items():
        wanted = _caffe_shapes(layer)
        # Blobs beyond those wanted keep their shape, and so make the lists differ.
        found = [
            (blob if shape is None else _without_legacy_axes(blob, shape)).shape
            for blob, shape in zip_longest(layers.get(name, ()), wanted)
            if blob is not None
        ]
        if name not in layers:
            problems.append(f"layer {name!r} is missing, expected {_join(wanted)}")
        elif found != wanted:
            problems.append(f"layer {name!r} has {_join(found)}, expected {_join(wanted)}")
    for name in layers:
        if name not in targets:
            shapes = _join([blob.shape for blob in layers[name]])
            problems.append(f"layer {name!r} of shape {shapes} is left over: the model has none")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise InputError(f"{origin}: does not fit the model: {'; '.join(problems[:4])}{more}")


def _join(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))


def _caffe_shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    """Gives the shapes that a layer's kernel and bias have in Caffe."""
    kernel, bias = (tuple(weight.shape) for weight in layer.weights)
    order = (3, 2, 0, 1) if len(kernel) == 4 else (1, 0)
    return [tuple(kernel[axis] for axis in order), bias]


def _without_legacy_axes(blob: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Drops the leading axes of 1 that fill a legacy blob up to four dimensions."""
    if blob.shape == (1,) * (4 - len(shape)) + shape:
        return blob.reshape(shape)
    return blob


def _weighted_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists the layers that own weights, through all nested models."""
    found: list[keras.layers.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _weighted_layers(layer)
        elif layer.weights:
            found.append(layer)
    return found


def _caffe_name(name: str) -> str:
    return _CAFFE_NAMES.get(name, name)


def _matrix_shape(layers: Layers, name: str, origin: str) -> tuple[int, int]:
    """Gives (outputs, inputs) of an InnerProduct layer."""
    if name not in layers:
        raise _missing(name, origin)
    shape = layers[name][0].shape
    if len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    if len(shape) != 2:
        raise InputError(
            f"{origin}: layer {name!r} has a weight of shape {shape}, expected (outputs, inputs)"
        )
    return shape


def _missing(name: str, origin: str) -> InputError:
    return InputError(f"{origin}: layer {name!r} is missing; the file holds another network, or is cut short")
