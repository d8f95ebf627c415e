"""The encoder, equation (1): VGG-16 up to conv5_3, keeping the switches of its poolings."""

import keras
from keras import KerasTensor

from tfseg.config import ModelConfig
from tfseg.layers import CaffeNormalization, FeatureStandardization, MaxPooling2DWithSwitches


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


def normalize_features(config: ModelConfig, features: KerasTensor) -> KerasTensor:
    """Brings conv5_3 to the range in which everything below the encoder sees it (SPEC 3.1, `Scale`)."""
    if config.feature_norm == "standardize":
        return FeatureStandardization(config.feature_scale, name="conv5_3_scaled")(features)
    return keras.layers.Rescaling(config.feature_scale, name="conv5_3_scaled")(features)
