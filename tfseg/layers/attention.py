"""The attention algebra of the paper, equations (3), (5), (7) and (10), one layer each."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfseg.precision import at_least_float32


@keras.saving.register_keras_serializable("tfseg")
class LabelOneHot(keras.layers.Layer):
    """Label ids to the one-hot vectors y^l of equation (2).

    Args:
        num_labels: L. Ids run from 1 to L, as in the masks. An id outside gives NaN, compiled or not, so that
            a model that is called with one answers NaN instead of a mask of no label.

    Input shape:
        `[B]`, integer.

    Output shape:
        `[B, L]`, of the compute dtype.
    """

    def __init__(self, num_labels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_labels = num_labels

    def call(self, label: KerasTensor) -> KerasTensor:
        """Encodes `label`; see the class for shapes."""
        label = ops.expand_dims(ops.cast(label, "int32"), -1)
        ids = ops.arange(1, self.num_labels + 1, dtype="int32")
        one_hot = ops.cast(ops.equal(label, ids), self.compute_dtype)
        known = ops.logical_and(label >= 1, label <= self.num_labels)
        return ops.where(known, one_hot, ops.cast(float("nan"), self.compute_dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `[B, L]`."""
        return (*input_shape, self.num_labels)

    def compute_output_spec(self, label: KerasTensor) -> KerasTensor:
        """Returns shape and dtype of the one-hot vectors."""
        return KerasTensor(self.compute_output_shape(label.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_labels": self.num_labels}


@keras.saving.register_keras_serializable("tfseg")
class SpatialSoftmax(keras.layers.Layer):
    """Equation (3): `a_i = exp(alpha_i) / sum_k exp(alpha_k)` over all positions of the map.

    Computed in float32 at least, whatever the policy: half precision cannot hold a sum over 400 positions.

    Args:
        map_size: Side of the square map; M is its square.

    Input shape:
        `[B, M]`, positions in row-major order.

    Output shape:
        `[B, map_size, map_size]`, of the compute dtype; positive, each image sums to 1.
    """

    def __init__(self, map_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.map_size = map_size

    def call(self, alpha: KerasTensor) -> KerasTensor:
        """Normalises `alpha`; see the class for shapes."""
        alpha = ops.cast(alpha, at_least_float32(alpha.dtype))
        attention = ops.softmax(alpha, axis=-1)
        attention = ops.reshape(attention, (-1, self.map_size, self.map_size))
        return ops.cast(attention, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `[B, map_size, map_size]`."""
        if input_shape[-1] is not None and input_shape[-1] != self.map_size**2:
            raise ValueError(f"{input_shape[-1]} positions do not fill a map of side {self.map_size}")
        return input_shape[0], self.map_size, self.map_size

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "map_size": self.map_size}


@keras.saving.register_keras_serializable("tfseg")
class AttendedFeature(keras.layers.Layer):
    """Equation (5): `z = A^T a`, the feature vector that the attention selects.

    Input shape:
        `(features, attention)`: `[B, h, w, D]` and `[B, h, w]`.

    Output shape:
        `[B, D]`.
    """

    def call(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Sums the features under the attention; see the class for shapes."""
        features, attention = inputs
        # A product of matrices: LiteRT's converter fails on an einsum that sums over two axes.
        batch, height, width = ops.shape(attention)
        attention = ops.reshape(attention, (batch, 1, height * width))
        return ops.squeeze(ops.matmul(attention, _flatten_positions(features)), axis=1)

    def compute_output_shape(self, input_shape: tuple[tuple, tuple]) -> tuple[int | None, ...]:
        """Returns `[B, D]`."""
        features, _ = input_shape
        return features[0], features[-1]


@keras.saving.register_keras_serializable("tfseg")
class DensifiedAttention(keras.layers.Layer):
    """Equation (7): `s = A z`, every position's similarity to what the attention selected.

    Input shape:
        `(features, attended)`: `[B, h, w, D]` and `[B, D]`.

    Output shape:
        `[B, h, w]`; not negative where features and attention are not.
    """

    def call(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Correlates features with the attended feature; see the class for shapes."""
        features, attended = inputs
        densified = ops.matmul(_flatten_positions(features), ops.expand_dims(attended, -1))
        return ops.reshape(densified, ops.shape(features)[:-1])

    def compute_output_shape(self, input_shape: tuple[tuple, tuple]) -> tuple[int | None, ...]:
        """Returns `[B, h, w]`."""
        features, _ = input_shape
        return tuple(features[:-1])


def gram_matrix(features: KerasTensor) -> KerasTensor:
    """Equation (10): `G = A A^T`; densified attention is its rows weighted by the attention.

    Args:
        features: `[B, h, w, D]`.

    Returns:
        `[B, M, M]` with M = h w, positions in row-major order.
    """
    flat = _flatten_positions(features)
    return ops.einsum("bmc,bnc->bmn", flat, flat)


def _flatten_positions(features: KerasTensor) -> KerasTensor:
    """Returns A of the equations, `[B, M, D]`, of `[B, h, w, D]`."""
    batch, height, width, channels = ops.shape(features)
    return ops.reshape(features, (batch, height * width, channels))
