"""TransferNet: encoder, label-conditioned attention and decoder as one model (figure 1 of the paper)."""

import keras
from keras import ops

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.models.attention import build_attention
from tfseg.models.decoder import build_decoder
from tfseg.models.encoder import build_encoder


def build_transfernet(config: ModelConfig) -> keras.Model:
    """Builds TransferNet.

    Its three parts are models of their own, `model.get_layer("encoder")`, `"attention"` and `"decoder"`, so
    that an image is encoded once for all its labels, and pairs without a mask are never decoded.

    Args:
        config: For instance `tfseg.config.preset("official")`: 233,952,354 parameters.

    Returns:
        Functional model of
        `{"image": float32 [B, S, S, 3] RGB 0 to 255, "label": int32 [B], ids 1 to L}` to
        `{"attention": [B, h, w], "densified": [B, h, w], "class_logits": float32 [B, L],
        "mask_logits": float32 [B, S, S, 2]}`. For an id outside of 1 to L, what depends on the label is NaN.
    """
    return assemble(config, build_attention(config), name="transfernet")


def assemble(config: ModelConfig, attention: keras.Model, name: str) -> keras.Model:
    """Joins a model that says where a label is with the shared encoder and decoder.

    Args:
        config: The configuration that `attention` was built from.
        attention: Functional model from `{"features", "label"}` to at least `{"attention", "densified",
            "class_logits"}`; the baselines differ from TransferNet in this part alone.
        name: Name of the model.

    Returns:
        Functional model with the inputs and outputs of `build_transfernet`.

    Raises:
        InputError: If `config.decoder_input` has not the size of the decoder's input.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    label = keras.Input((), dtype="int32", name="label")
    encoded = build_encoder(config)(image)
    features = encoded.pop("features")
    located = attention({"features": features, "label": label})
    decoder_input = located[config.decoder_input]
    if decoder_input.shape[1:] != (config.map_size, config.map_size):
        raise InputError(
            f"decoder_input={config.decoder_input}: {name}'s is {decoder_input.shape[1:]}, the decoder takes "
            f"{(config.map_size, config.map_size)}; this ablation is one of transfernet alone"
        )
    if not config.joint_gradient:
        decoder_input = ops.stop_gradient(decoder_input)
    mask_logits = build_decoder(config)({"densified": decoder_input, **encoded})
    outputs = {key: located[key] for key in ("attention", "densified", "class_logits")}
    return keras.Model({"image": image, "label": label}, {**outputs, "mask_logits": mask_logits}, name=name)
