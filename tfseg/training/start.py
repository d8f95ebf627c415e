"""Where the weights of a stage come from before its first update (SPEC 6)."""

import itertools
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.importers.vgg16 import load_encoder_weights
from tfseg.model_dir import ModelDir, restore_weights
from tfseg.training.step import Batch

FINETUNED = "finetuned"

# What stage `encoder` is built from, and what stage `attention` is built from: ablations share them.
_CLASSIFIER_FIELDS = (
    "image_size", "image_fit", "num_labels", "encoder_blocks", "encoder_padding", "feature_norm",
    "feature_scale", "classifier_units", "bgr_mean",
)  # fmt: skip
_ATTENTION_FIELDS = (
    *_CLASSIFIER_FIELDS, "unit_features", "factors", "gating", "combined_embed", "classification_units",
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


def measure_features(network: keras.Model, batches: Iterable[Batch], count: int = 16) -> None:
    """Gives `FeatureStandardization` the statistics of the encoder's features, over the first batches.

    Args:
        network: Its encoder is final: stages after `encoder` leave it as it is.
        batches: From `tfseg.data.batches`.
        count: Batches to read.
    """
    owner = next(iter(_attention(network)), network)
    layer = owner.get_layer("conv5_3_scaled")
    encoder = network.get_layer("encoder")
    encode = tf.function(lambda image: encoder(image, training=False)["features"])
    total, squares, number = 0.0, 0.0, 0
    for batch in itertools.islice(batches, count):
        for examples in batch.values():
            features = encode(examples["image"]).numpy().astype(np.float64).reshape(-1, layer.mean.shape[0])
            total, squares = total + features.sum(axis=0), squares + (features**2).sum(axis=0)
            number += len(features)
    mean = total / number
    stddev = np.sqrt(np.maximum(squares / number - mean**2, 0.0))
    layer.mean.assign(mean)
    # Some channels are off in every image; they must not become infinite in the next.
    layer.stddev.assign(np.maximum(stddev, max(1e-3 * stddev.max(), 1e-12)))
