"""The class-agnostic decoder, f_dec of equation (8): deconvolutions between unpoolings."""

import keras
from keras import KerasTensor

from tfseg.config import ModelConfig
from tfseg.layers import MaxUnpooling2D
from tfseg.precision import at_least_float32


def build_decoder(config: ModelConfig) -> keras.Model:
    """Builds the mirror of the encoder that draws the shape of what the attention found (SPEC 3.5).

    One deconvolution lifts the map to the channels of the last switches; each unpooling is followed by as
    many deconvolutions as the encoder block has convolutions, the last of them narrowing to the channels of
    the block below. All with ReLU, none with batch norm: the authors' final choice.

    Args:
        config: Blocks and initialisers are taken from it.

    Returns:
        Functional model from `{"densified": [B, h, w], "switches1": uint8, ...}` to mask logits, float32
        `[B, S, S, 2]`, channel 0 background and 1 foreground.
    """
    densified = keras.Input((config.map_size, config.map_size), name="densified")
    switches = _switch_inputs(config)
    top = len(config.encoder_blocks)
    x = keras.layers.Reshape((config.map_size, config.map_size, 1), name="densified_map")(densified)
    x = _deconvolution(config, config.encoder_blocks[top - 2][1], f"deconv{top}_1")(x)
    for block in range(top - 1, 0, -1):
        x = MaxUnpooling2D(name=f"unpool{block}")([x, switches[f"switches{block}"]])
        depth, channels = config.encoder_blocks[block - 1]
        below = config.encoder_blocks[max(block - 2, 0)][1]
        for index in range(1, depth + 1):
            width = channels if index < depth else below
            x = _deconvolution(config, width, f"deconv{block}_{index}")(x)
    logits = keras.layers.Conv2D(
        2, 1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="seg_score"
    )(x)
    logits = keras.layers.Activation("linear", dtype=at_least_float32(), name="mask_logits")(logits)
    return keras.Model({"densified": densified, **switches}, logits, name="decoder")


def _switch_inputs(config: ModelConfig) -> dict[str, KerasTensor]:
    inputs = {}
    for block, (_, channels) in enumerate(config.encoder_blocks[:-1], start=1):
        side = config.image_size // 2**block
        name = f"switches{block}"
        inputs[name] = keras.Input((side, side, channels), dtype="uint8", name=name)
    return inputs


def _initializer(config: ModelConfig) -> keras.initializers.Initializer:
    if config.decoder_init == "he":
        return keras.initializers.HeNormal()
    return keras.initializers.RandomNormal(stddev=config.decoder_stddev)


def _deconvolution(config: ModelConfig, channels: int, name: str) -> keras.layers.Layer:
    return keras.layers.Conv2DTranspose(
        channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=_initializer(config),
        name=name,
    )
