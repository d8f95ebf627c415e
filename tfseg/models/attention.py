"""The label-conditioned attention model, equations (2) to (7), and the classification that trains it."""

import keras
from keras import KerasTensor

from tfseg.config import ModelConfig
from tfseg.layers import AttendedFeature, DensifiedAttention, LabelOneHot, SpatialSoftmax
from tfseg.models.encoder import normalize_features
from tfseg.precision import at_least_float32


def build_attention(config: ModelConfig) -> keras.Model:
    """Builds f_att, f_cls and the densified attention over a feature map.

    `alpha = W_att (W_feat vec(A) * W_label y) + b` (equation 4; with `combined_embed` the authors' extra
    dense layer and ReLU stand before W_att), `a = softmax(alpha)` (3), `z = A^T a` (5), `f_cls(z)` (6),
    `s = A z` (7). The label reaches the classification through z alone, which rules out the trivial
    solution.

    Args:
        config: Map size, factors, gating, labels and scale are taken from it.

    Returns:
        Functional model from `{"features": [B, h, w, D], "label": int32 [B]}` to `{"attention": [B, h, w],
        "densified": [B, h, w], "class_logits": float32 [B, L]}`.
    """
    shape = (config.map_size, config.map_size, config.feature_channels)
    features = keras.Input(shape, name="features")
    label = keras.Input((), dtype="int32", name="label")
    scaled = normalize_features(config, features)
    if config.unit_features:
        scaled = keras.layers.UnitNormalization(axis=-1, name="conv5_3_unit")(scaled)

    one_hot = LabelOneHot(config.num_labels, name="cls_label")(label)
    gated = _gate(config, scaled, one_hot)
    if config.combined_embed:
        gated = _dense(config.factors, "combined_embed", activation="relu")(gated)
    alpha = keras.layers.Dense(
        config.map_size**2,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="att_w",
    )(gated)
    if config.label_queries:
        alpha = _add_queries(config, alpha, scaled, one_hot)
    attention = SpatialSoftmax(config.map_size, name="att_normalized")(alpha)
    attended = AttendedFeature(name="soft_att")([scaled, attention])
    densified = DensifiedAttention(name="filter_sum_map")([scaled, attended])
    class_logits = build_classification_head(config)(attended)
    return keras.Model(
        {"features": features, "label": label},
        {"attention": attention, "densified": densified, "class_logits": class_logits},
        name="attention",
    )


def build_classification_head(config: ModelConfig) -> keras.Model:
    """Builds f_cls of equation (6): which label is it that the attention looks at?

    Args:
        config: Channels, units and number of labels are taken from it.

    Returns:
        Functional model from the attended feature z `[B, D]` to logits, float32 `[B, L]`.
    """
    attended = keras.Input((config.feature_channels,), name="attended")
    x = _dense(config.classification_units, "ip1", activation="relu")(attended)
    logits = _dense(config.num_labels, "cls_score")(x)
    logits = keras.layers.Activation("linear", dtype=at_least_float32(), name="class_logits")(logits)
    return keras.Model(attended, logits, name="classification_head")


def _add_queries(
    config: ModelConfig, alpha: KerasTensor, scaled: KerasTensor, one_hot: KerasTensor
) -> KerasTensor:
    """Adds `q_l A_i` to alpha, `[B, M]`: nothing, to the last bit, where q_l is 0."""
    query = keras.layers.Dense(
        config.feature_channels, use_bias=False, kernel_initializer="zeros", name="att_query"
    )(one_hot)
    scores = DensifiedAttention(name="query_scores")([scaled, query])
    # The sum is taken over maps: TensorFlow would fuse one behind a dense layer, and round otherwise.
    alpha = keras.layers.Reshape(scores.shape[1:], name="alpha_map")(alpha)
    alpha = keras.layers.Add(name="alpha_and_query")([alpha, scores])
    return keras.layers.Flatten(name="alpha_flat")(alpha)


def _gate(config: ModelConfig, scaled: KerasTensor, one_hot: KerasTensor) -> KerasTensor:
    """Joins feature and label embedding, `[B, factors]` (concat: `[B, 2 factors]`)."""
    # W_feat is dense over the whole flattened map, no 1x1 convolution: the attention knows positions.
    flat = keras.layers.Flatten(name="flatten")(scaled)
    feat_embed = _dense(config.factors, "feat_embed")(flat)
    cls_embed = _dense(config.factors, "cls_embed")(one_hot)
    if config.gating == "additive":
        return keras.layers.Add(name="additive")([feat_embed, cls_embed])
    if config.gating == "concat":
        return keras.layers.Concatenate(name="concat")([feat_embed, cls_embed])
    return keras.layers.Multiply(name="multiplicative")([feat_embed, cls_embed])


def _dense(units: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    # Caffe's "xavier" is uniform in +-sqrt(3 / fan_in): lecun_uniform, not glorot_uniform (SPEC 3.2).
    return keras.layers.Dense(units, activation=activation, kernel_initializer="lecun_uniform", name=name)
