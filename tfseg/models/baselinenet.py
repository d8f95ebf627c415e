"""BaselineNet (figure 7b): the score map of a class, enlarged by a dense layer, is what gets decoded."""

import keras
from keras import ops

from tfseg.config import ModelConfig
from tfseg.layers import LabelOneHot, SpatialSoftmax
from tfseg.models.classifier import build_classifier_head, pool_features, pool_scores
from tfseg.models.transfernet import assemble


def build_baselinenet(config: ModelConfig) -> keras.Model:
    """Builds BaselineNet; encoder and decoder are TransferNet's.

    Inputs and outputs are those of `build_transfernet`; `attention` is the softmax of the score map,
    `[B, 4, 4]`, and `densified` the decoder's input.
    """
    return assemble(config, _build_score_attention(config), name="baselinenet")


def _build_score_attention(config: ModelConfig) -> keras.Model:
    shape = (config.map_size, config.map_size, config.feature_channels)
    features = keras.Input(shape, name="features")
    label = keras.Input((), dtype="int32", name="label")
    pooled, _ = pool_features(config, features)
    score_maps = build_classifier_head(config)(pooled)
    one_hot = LabelOneHot(config.num_labels, name="cls_label")(label)
    selected = ops.einsum("bhwl,bl->bhw", score_maps, one_hot)
    selected = keras.layers.Flatten(name="selected_score_map")(selected)
    # The classification network is trained by labels alone; masks train what comes after it.
    enlarged = keras.layers.Dense(
        config.map_size**2, kernel_initializer="lecun_uniform", name="score_to_map"
    )(ops.stop_gradient(selected))
    densified = keras.layers.Reshape((config.map_size, config.map_size), name="densified")(enlarged)
    return keras.Model(
        {"features": features, "label": label},
        {
            "attention": SpatialSoftmax(config.score_map_size, name="attention_map")(selected),
            "densified": densified,
            "class_logits": pool_scores(config, score_maps),
        },
        name="attention",
    )
