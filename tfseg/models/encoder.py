"""The encoder, equation (1): VGG-16 up to conv5_3, keeping the switches of its poolings."""

import os

import h5py
import keras
import numpy as np

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.layers import CaffeNormalization, MaxPooling2DWithSwitches

# Keras calls the convolutions of its VGG-16 by other names than the authors of VGG-16.
_KERAS_NAME = "block{block}_conv{index}"
_WHERE_TO_GET = (
    "give the path of vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 (58.9 MB, from the releases of "
    "keras-applications), `imagenet` to let Keras download it, or `none`"
)


def build_encoder(config: ModelConfig) -> keras.Model:
    """Builds `A = f_enc(x)`, equation (1), with the switches that the decoder needs.

    Args:
        config: Blocks, padding, image size and means are taken from it.

    Returns:
        Functional model from `image`, float32 `[B, S, S, 3]` RGB in 0 to 255, to a dictionary of
        `features` `[B, S/stride, S/stride, D]`, the last block after its ReLU and not yet scaled, and
        `switches1`, `switches2`, ..., uint8 `[B, S/2^k, S/2^k, C_k]`.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    outputs = {}
    x = CaffeNormalization(config.bgr_mean, name="normalization")(image)
    for block, (depth, channels) in enumerate(config.encoder_blocks, start=1):
        for index in range(1, depth + 1):
            if config.encoder_padding == "symmetric":
                x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
            x = keras.layers.Conv2D(
                channels,
                3,
                padding="same" if config.encoder_padding == "zero" else "valid",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv{block}_{index}",
            )(x)
        if block <= config.num_poolings:
            x, outputs[f"switches{block}"] = MaxPooling2DWithSwitches(name=f"pool{block}")(x)
    return keras.Model(image, {"features": x, **outputs}, name="encoder")


def load_encoder_weights(encoder: keras.Model, config: ModelConfig, source: str) -> None:
    """Loads VGG-16 weights trained on ImageNet into the encoder.

    Keras' VGG-16 weights are converted from the authors' Caffe model and expect BGR input with the mean
    subtracted, just what `CaffeNormalization` gives.

    Args:
        encoder: What `build_encoder` returned.
        config: Its configuration.
        source: `imagenet` to let Keras download and cache the file, the path of a downloaded
            `..._notop.h5` (or with-top) file, or `none` to keep the random weights.

    Raises:
        InputError: If the network is not VGG-16, or the file is missing or holds something else.
    """
    if source == "none":
        return
    if config.encoder_blocks != ModelConfig().encoder_blocks:
        raise InputError(
            f"encoder_weights={source}: VGG-16 weights fit the official encoder only, not blocks "
            f"{config.encoder_blocks}; use --encoder_weights=none"
        )
    weights = _download_vgg16() if source == "imagenet" else _read_vgg16(source)
    for block, (depth, _) in enumerate(config.encoder_blocks, start=1):
        for index in range(1, depth + 1):
            layer = encoder.get_layer(f"conv{block}_{index}")
            try:
                layer.set_weights(weights[_KERAS_NAME.format(block=block, index=index)])
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"encoder_weights={source}: no VGG-16 weights for {layer.name} ({error}); {_WHERE_TO_GET}"
                ) from error


def _download_vgg16() -> dict[str, list[np.ndarray]]:
    try:
        vgg = keras.applications.VGG16(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises bare Exception when its download fails.
        raise InputError(f"encoder_weights=imagenet: the download failed; {_WHERE_TO_GET}") from error
    return {layer.name: layer.get_weights() for layer in vgg.layers}


def _read_vgg16(path: str) -> dict[str, list[np.ndarray]]:
    """Reads the convolutions of a legacy Keras HDF5 file; loading by name would pass over missing layers."""
    if not os.path.isfile(path):
        raise InputError(f"encoder_weights={path}: no such file; {_WHERE_TO_GET}")
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return {
                name: [np.asarray(group[weight]) for weight in group.attrs["weight_names"]]
                for name, group in root.items()
                if "_conv" in name
            }
    except (OSError, KeyError) as error:
        raise InputError(
            f"encoder_weights={path}: not a Keras weights file ({error}); {_WHERE_TO_GET}"
        ) from error
