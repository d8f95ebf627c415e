"""Where the weights of a stage come from before its first update (SPEC 6)."""

import keras

from tfseg.errors import InputError
from tfseg.models.encoder import load_encoder_weights
from tfseg.training.checkpoints import ModelDir, restore_weights

FINETUNED = "finetuned"

# What stage `encoder` is built from, and what stage `attention` is built from: ablations share them.
_CLASSIFIER_FIELDS = (
    "image_size", "num_labels", "encoder_blocks", "encoder_padding", "feature_scale", "classifier_units",
    "bgr_mean",
)  # fmt: skip
_ATTENTION_FIELDS = (
    *_CLASSIFIER_FIELDS, "factors", "gating", "combined_embed", "classification_units",
)  # fmt: skip


def load_start_weights(
    network: keras.Model, stage: str, directory: ModelDir, encoder_weights: str, earlier: ModelDir
) -> str:
    """Loads what a stage starts from.

    `joint` goes on from stage `attention`. The other stages take the encoder that `encoder_weights`
    names; with `finetuned`, stage `classifier` and the baselines take the classifier's head along.

    Args:
        network: The network to fill.
        stage: Its stage.
        directory: Its model directory.
        encoder_weights: `finetuned` for stage `encoder` of `earlier`, or what `load_encoder_weights` takes.
        earlier: Model directory that holds the earlier stages; mostly the same one.

    Returns:
        What was loaded, for the log.

    Raises:
        InputError: If an earlier stage is missing or was another network.
    """
    shared = _ATTENTION_FIELDS if stage == "joint" else _CLASSIFIER_FIELDS
    for name in shared:
        theirs, ours = getattr(earlier.config, name), getattr(directory.config, name)
        if theirs != ours:
            raise InputError(
                f"{earlier.path}/model.json: {name} is {theirs}, here it is {ours}; "
                "--init_dir must hold earlier stages of the same network"
            )
    if earlier.label_map != directory.label_map:
        raise InputError(
            f"{earlier.path}/labels.json: other labels than {directory.path}; "
            "--init_dir must hold earlier stages on the same label map"
        )
    if stage == "joint":
        checkpoint = earlier.require("attention")
        restore_weights(network, checkpoint)
        return checkpoint
    if encoder_weights != FINETUNED:
        load_encoder_weights(network.get_layer("encoder"), directory.config, encoder_weights)
        return f"encoder_weights={encoder_weights}"
    if stage == "encoder":
        raise InputError(
            "encoder_weights=finetuned: stage encoder is the one that finetunes; give "
            "imagenet, a file or none"
        )
    # The baselines hold the classifier's head inside their attention part.
    parts = {part.name: part for model in (network, *_attention(network)) for part in model.layers}
    for part in earlier.load("encoder").layers:
        if part.weights and part.name in parts:
            parts[part.name].set_weights(part.get_weights())
    return str(earlier.newest("encoder"))


def _attention(network: keras.Model) -> list[keras.Model]:
    return [layer for layer in network.layers if layer.name == "attention"]
