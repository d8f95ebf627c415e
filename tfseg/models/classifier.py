"""The whole-image, multi-label classifier: it trains the encoder and names the labels at test time."""

import keras
from keras import KerasTensor

from tfseg.config import ModelConfig
from tfseg.models.encoder import build_encoder


def build_classifier(config: ModelConfig) -> keras.Model:
    """Builds the fully-convolutional VGG classifier of SPEC 7, step 2.

    The authors' network was never published; this is the one of DecoupledNet, which they name as its
    model: pool5, fc6 as a convolution, fc7 and one score map per label, averaged over positions.
    Sigmoid of the logits is the probability that the label is present.

    Args:
        config: Encoder, widths and number of labels are taken from it.

    Returns:
        Functional model from `{"image": float32 [B, S, S, 3] RGB 0 to 255}` to `{"class_logits": float32
        [B, L]}`, with sub-models `encoder` and `classifier_head`.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    features = build_encoder(config)(image)["features"]
    score_maps = build_classifier_head(config)(features)
    logits = pool_scores(score_maps)
    return keras.Model({"image": image}, {"class_logits": logits}, name="classifier")


def build_classifier_head(config: ModelConfig) -> keras.Model:
    """Builds the part above the feature map, which BaselineNet and DecoupledNet share.

    Args:
        config: Map size, widths and number of labels are taken from it.

    Returns:
        Functional model from features `[B, h, w, D]` to score maps `[B, h', w', L]`; 4x4 for a 20x20 map.
    """
    shape = (config.map_size, config.map_size, config.feature_channels)
    features = keras.Input(shape, name="features")
    x = keras.layers.Rescaling(config.feature_scale, name="scaled")(features)
    x = keras.layers.MaxPooling2D(2, name="pool5")(x)
    # VGG-16's fc6 sees 7x7; on the 10x10 map of a 320x320 image that leaves 4x4, kept at every size.
    kernel = max(config.map_size // 2 - 3, 1)
    for name, size in (("fc6", kernel), ("fc7", 1)):
        x = keras.layers.Conv2D(
            config.classifier_units,
            size,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = keras.layers.Dropout(config.classifier_dropout, name=f"drop_{name}")(x)
    scores = keras.layers.Conv2D(config.num_labels, 1, kernel_initializer="lecun_uniform", name="score")(x)
    return keras.Model(features, scores, name="classifier_head")


def pool_scores(score_maps: KerasTensor) -> KerasTensor:
    """Averages score maps `[B, h, w, L]` to logits, float32 `[B, L]`."""
    logits = keras.layers.GlobalAveragePooling2D(name="score_pool")(score_maps)
    return keras.layers.Activation("linear", dtype="float32", name="class_logits")(logits)
