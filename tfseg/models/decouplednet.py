"""DecoupledNet (figure 7c): features and the gradient of a class score together are what gets decoded."""

from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from tfseg.config import ModelConfig
from tfseg.layers import LabelOneHot, MaxUnpooling2D
from tfseg.models.classifier import build_classifier_head, pool_features, pool_scores
from tfseg.models.transfernet import assemble


def build_decouplednet(config: ModelConfig) -> keras.Model:
    """Builds DecoupledNet on TransferNet's encoder and decoder.

    Inputs and outputs are those of `build_transfernet`; `attention` is the positive part of gradient times
    feature, summed over channels and normalised, `[B, h/2, w/2]`, and `densified` the decoder's input.
    """
    return assemble(config, _build_gradient_attention(config), name="decouplednet")


@keras.saving.register_keras_serializable("tfseg")
class ScoreGradient(keras.layers.Layer):
    """Gradient of one class score with respect to the pooled feature map.

    The class score is the maximum of the label's score map. The backward pass through the head is written
    out: `keras.ops` has no derivatives, and that of a convolution is the transposed convolution with the same
    kernel. The head runs as at test time, without dropout, and no gradient flows through the result: masks
    do not train the classification network.

    Args:
        head: What `build_classifier_head` returned.
        score_pool: As in its `ModelConfig`.

    Input shape:
        `(pooled, one_hot)`: `[B, h, w, D]` and `[B, L]`.

    Output shape:
        `[B, h, w, D]`.
    """

    def __init__(self, head: keras.Model, score_pool: Literal["max", "mean"] = "max", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = head
        self.score_pool = score_pool

    def call(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Differentiates the label's score; see the class for shapes."""
        pooled, one_hot = inputs
        layers = [layer for layer in self.head.layers if isinstance(layer, keras.layers.Conv2D)]
        seen = [pooled]
        for layer in layers:
            seen.append(layer(seen[-1]))
        scores = seen[-1]

        if self.score_pool == "max":  # Equal maxima share the gradient.
            counted = ops.equal(scores, ops.max(scores, axis=(1, 2), keepdims=True))
        else:
            counted = ops.ones_like(scores)
        counted = ops.cast(counted, scores.dtype)
        gradient = counted / ops.sum(counted, axis=(1, 2), keepdims=True)
        gradient = gradient * ops.cast(one_hot, scores.dtype)[:, None, None, :]
        for layer, inputs_of_layer in zip(reversed(layers), reversed(seen[:-1]), strict=True):
            gradient = ops.conv_transpose(gradient, ops.cast(layer.kernel, gradient.dtype), padding="valid")
            if inputs_of_layer is not pooled:  # Behind a ReLU.
                gradient = gradient * ops.cast(inputs_of_layer > 0, gradient.dtype)  # NaN stays NaN.
        return ops.stop_gradient(gradient)

    def compute_output_spec(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Returns shape and dtype of the pooled map."""
        return KerasTensor(inputs[0].shape, inputs[0].dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        head = keras.saving.serialize_keras_object(self.head)
        # Keras names the objects of a file that stand in it more than once, but forgets the first place
        # where that lies within another object's configuration.
        head["shared_object_id"] = id(self.head)
        return {**super().get_config(), "head": head, "score_pool": self.score_pool}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScoreGradient":
        """Builds the layer from what `get_config` gave."""
        return cls(**{**config, "head": keras.saving.deserialize_keras_object(config["head"])})


def _build_gradient_attention(config: ModelConfig) -> keras.Model:
    shape = (config.map_size, config.map_size, config.feature_channels)
    features = keras.Input(shape, name="features")
    label = keras.Input((), dtype="int32", name="label")
    pooled, switches5 = pool_features(config, features)
    head = build_classifier_head(config)
    score_maps = head(pooled)
    one_hot = LabelOneHot(config.num_labels, name="cls_label")(label)
    score_gradient = ScoreGradient(head, config.score_pool, name="score_gradient")([pooled, one_hot])

    saliency = ops.relu(ops.sum(pooled * score_gradient, axis=-1))
    attention = saliency / (ops.sum(saliency, axis=(1, 2), keepdims=True) + 1e-12)
    bridged = MaxUnpooling2D(name="unpool5")([_bridge(config, pooled, score_gradient), switches5])
    # Narrowed to one map, so that the decoder is TransferNet's own (SPEC 9).
    projected = keras.layers.Conv2D(1, 1, kernel_initializer="lecun_uniform", name="projection")(bridged)
    densified = keras.layers.Reshape((config.map_size, config.map_size), name="densified")(projected)
    return keras.Model(
        {"features": features, "label": label},
        {"attention": attention, "densified": densified, "class_logits": pool_scores(config, score_maps)},
        name="attention",
    )


def _bridge(config: ModelConfig, pooled: KerasTensor, score_gradient: KerasTensor) -> KerasTensor:
    """The "few feed-forward layers" of section 6.3, as DecoupledNet has them."""
    units = max((config.classifier_units or config.feature_channels) // 2, 1)
    kernel = config.classifier_kernel
    normalize = [
        keras.layers.BatchNormalization(name=f"bn_{name}")(x)
        for name, x in (("features", pooled), ("gradient", score_gradient))
    ]
    x = keras.layers.Concatenate(name="bridge_input")(normalize)
    blocks = (
        keras.layers.Conv2D(units, kernel, kernel_initializer="he_normal", name="bridge_conv1"),
        keras.layers.Conv2D(units, 1, kernel_initializer="he_normal", name="bridge_conv2"),
        keras.layers.Conv2DTranspose(
            config.feature_channels, kernel, kernel_initializer="he_normal", name="bridge_deconv"
        ),
    )
    for block in blocks:
        x = keras.layers.BatchNormalization(name=f"bn_{block.name}")(block(x))
        x = keras.layers.Activation("relu", name=f"relu_{block.name}")(x)
    return x
