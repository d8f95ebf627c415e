"""The whole-image, multi-label classifier: it trains the encoder and names the labels at test time."""

import math

import keras
from keras import KerasTensor

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.layers import MaxPooling2DWithSwitches
from tfseg.models.encoder import build_encoder, normalize_features
from tfseg.precision import at_least_float32


def build_classifier(config: ModelConfig) -> keras.Model:
    """Builds the fully-convolutional VGG classifier of SPEC 7, step 2.

    The authors' network was never published; this is the one of DecoupledNet, which they name as its
    model: pool5, fc6 as a convolution, fc7 and one score map per label, of which the maximum counts.
    Sigmoid of the logits is the probability that the label is present.

    Args:
        config: Encoder, widths and number of labels are taken from it.

    Returns:
        Functional model from `{"image": float32 [B, S, S, 3] RGB 0 to 255}` to `{"class_logits": float32
        [B, L]}`, with sub-models `encoder` and `classifier_head`.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    features = build_encoder(config)(image)["features"]
    pooled, _ = pool_features(config, features)
    logits = pool_scores(config, build_classifier_head(config)(pooled))
    return keras.Model({"image": image}, {"class_logits": logits}, name="classifier")


def pool_features(config: ModelConfig, features: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """Scales features `[B, h, w, D]` and pools them: `(pool5, switches5)`, `[B, h/2, w/2, D]` each.

    Raises:
        InputError: If h is odd.
    """
    if config.map_size % 2:
        raise InputError(
            f"image_size={config.image_size}: leaves a map of {config.map_size}x{config.map_size}, which "
            f"this network halves once more; must be a multiple of {2 * config.stride}"
        )
    scaled = normalize_features(config, features)
    return MaxPooling2DWithSwitches(name="pool5")(scaled)


def build_classifier_head(config: ModelConfig) -> keras.Model:
    """Builds the part above pool5, which BaselineNet and DecoupledNet share.

    Args:
        config: Map size, widths and number of labels are taken from it.

    Returns:
        Functional model from pool5 `[B, h/2, w/2, D]` to score maps `[B, h', w', L]`; 4x4 at 320x320.
    """
    side = config.map_size // 2
    pooled = keras.Input((side, side, config.feature_channels), name="pool5")
    x = pooled
    layers = (("fc6", config.classifier_kernel), ("fc7", 1)) if config.classifier_units else ()
    for name, kernel in layers:
        x = keras.layers.Conv2D(
            config.classifier_units,
            kernel,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = keras.layers.Dropout(config.classifier_dropout, name=f"drop_{name}")(x)
    # Of L labels an image shows few. From a bias of 0 the first updates push all scores down together, which
    # leaves no unit of fc6 and fc7 above zero: then each logit stays at 0 and the loss at ln 2 a label.
    prior = keras.initializers.Constant(-math.log(config.num_labels))
    scores = keras.layers.Conv2D(
        config.num_labels, 1, kernel_initializer="lecun_uniform", bias_initializer=prior, name="score"
    )(x)
    return keras.Model(pooled, scores, name="classifier_head")


def pool_scores(config: ModelConfig, score_maps: KerasTensor) -> KerasTensor:
    """Takes the maximum or the mean of score maps `[B, h', w', L]` as logits, float32 `[B, L]`.

    With the maximum one object is enough, wherever it stands.
    """
    pool = (
        keras.layers.GlobalMaxPooling2D if config.score_pool == "max" else keras.layers.GlobalAveragePooling2D
    )
    logits = pool(name="score_pool")(score_maps)
    return keras.layers.Activation("linear", dtype=at_least_float32(), name="class_logits")(logits)
