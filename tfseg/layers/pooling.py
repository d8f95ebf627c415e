"""Max pooling that keeps its switches, and the unpooling that uses them.

Non-overlapping 2x2 windows make the switch a choice of one in four, so both layers are comparisons and
selections on blocks: no argmax kernel, no scatter, no 64-bit index maps. The result is bit-equal to
`tf.nn.max_pool_with_argmax` and `tf.scatter_nd`, ties included, and runs where those do not: under XLA,
in TFLite and on every Keras backend.
"""

from typing import Any

import keras
from keras import KerasTensor, ops


def _require_pool_size_2(pool_size: int | tuple[int, int]) -> None:
    if pool_size not in (2, (2, 2), [2, 2]):
        raise ValueError(f"pool_size={pool_size!r}: only 2 is supported (a switch is one of four)")


def _require_even(height: int | None, width: int | None) -> None:
    for name, size in (("height", height), ("width", width)):
        if size is not None and size % 2:
            raise ValueError(f"{name} {size} is odd: 2x2 windows need even sizes; pad or crop the input")


@keras.saving.register_keras_serializable("tfseg")
class MaxPooling2DWithSwitches(keras.layers.Layer):
    """2x2 max pooling with stride 2 that also returns where each maximum stood.

    `pooled[b, i, j, c] = max_k window[k]` and `switches[b, i, j, c] = argmax_k window[k]`, with k the
    row-major index in the window of `inputs[b, 2i:2i+2, 2j:2j+2, c]`. The first maximum wins, as in the
    authors' Caffe (SPEC 13). The gradient goes to the winner alone. Comparisons with NaN are false: a NaN in
    the first place of its window stays, elsewhere it may hide the values beside it; the argmax op
    differs there, and only there.

    Args:
        pool_size: 2, the only size that there is.

    Input shape:
        `[B, H, W, C]`, H and W even, of a floating dtype.

    Output shape:
        `(pooled, switches)`, both `[B, H/2, W/2, C]`; pooled of the input's dtype, switches uint8, 0 to 3.

    Raises:
        ValueError: If height or width is odd, or `pool_size` is not 2.
    """

    def __init__(self, pool_size: int | tuple[int, int] = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _require_pool_size_2(pool_size)
        self.pool_size = 2
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Pools `inputs`; see the class for shapes."""
        _require_even(inputs.shape[1], inputs.shape[2])
        # With -1 for the batch, odd sizes that are not known at tracing would be folded into it unseen.
        batch, height, width, channels = ops.shape(inputs)
        blocks = ops.reshape(inputs, (batch, height // 2, 2, width // 2, 2, channels))
        # Unstacking, not slicing: outside XLA the gradient of a slice pads it to the full size.
        top_row, bottom_row = ops.unstack(blocks, 2, axis=2)
        top_left, top_right = ops.unstack(top_row, 2, axis=3)
        bottom_left, bottom_right = ops.unstack(bottom_row, 2, axis=3)
        # Strict comparisons keep the first of equal maxima; selections give its gradient to it alone.
        top_is_right = top_right > top_left
        bottom_is_right = bottom_right > bottom_left
        top = ops.where(top_is_right, top_right, top_left)
        bottom = ops.where(bottom_is_right, bottom_right, bottom_left)
        is_bottom = bottom > top
        pooled = ops.where(is_bottom, bottom, top)
        # Sums and selections of uint8 have no kernel in LiteRT, and are slower on a CPU than those of int32.
        is_right = ops.where(is_bottom, bottom_is_right, top_is_right)
        switches = ops.cast(is_right, "int32") + 2 * ops.cast(is_bottom, "int32")
        return pooled, ops.cast(switches, "uint8")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[tuple, tuple]:
        """Returns the shapes of (pooled, switches)."""
        batch, height, width, channels = input_shape
        _require_even(height, width)
        half = (batch, height and height // 2, width and width // 2, channels)
        return half, half

    def compute_output_spec(self, inputs: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        """Returns the shapes and dtypes of (pooled, switches)."""
        pooled_shape, switches_shape = self.compute_output_shape(inputs.shape)
        return KerasTensor(pooled_shape, inputs.dtype), KerasTensor(switches_shape, "uint8")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "pool_size": self.pool_size}


@keras.saving.register_keras_serializable("tfseg")
class MaxUnpooling2D(keras.layers.Layer):
    """Puts each value back where its maximum stood; the other three places of its window are zero.

    `outputs[b, 2i + k // 2, 2j + k % 2, c] = values[b, i, j, c] if switches[b, i, j, c] == k else 0`. Its
    gradient gathers the same places.

    Args:
        pool_size: 2, the only size that there is.

    Input shape:
        `(values, switches)`, both `[B, H, W, C]`; values floating, switches uint8, 0 to 3.

    Output shape:
        `[B, 2H, 2W, C]`, of the dtype of values.

    Raises:
        ValueError: If values and switches differ in shape, or `pool_size` is not 2.
    """

    def __init__(self, pool_size: int | tuple[int, int] = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _require_pool_size_2(pool_size)
        self.pool_size = 2

    def call(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Unpools `(values, switches)`; see the class for shapes."""
        values, switches = inputs
        self.compute_output_shape((values.shape, switches.shape))
        _, height, width, channels = ops.shape(values)
        corners = [ops.where(ops.equal(switches, k), values, 0) for k in range(4)]
        # [B, H, 2, W, 2, C]: the innermost dimension stays the channels, which keeps copies long.
        top = ops.stack(corners[:2], axis=3)
        bottom = ops.stack(corners[2:], axis=3)
        blocks = ops.stack([top, bottom], axis=2)
        return ops.reshape(blocks, (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape: tuple[tuple, tuple]) -> tuple[int | None, ...]:
        """Returns the shape of the unpooled map."""
        values, switches = (tuple(shape) for shape in input_shape)
        same = len(values) == len(switches) == 4 and all(
            a is None or b is None or a == b for a, b in zip(values, switches, strict=True)
        )
        if not same:
            raise ValueError(f"values {values} and switches {switches} must be [B, H, W, C] and equal")
        batch, height, width, channels = values
        return batch, height and 2 * height, width and 2 * width, channels

    def compute_output_spec(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """Returns shape and dtype of the unpooled map."""
        values, switches = inputs
        return KerasTensor(self.compute_output_shape((values.shape, switches.shape)), values.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "pool_size": self.pool_size}


def switches_to_argmax(switches: KerasTensor) -> KerasTensor:
    """Converts switches to the flat indices of `tf.nn.max_pool_with_argmax`.

    Args:
        switches: uint8 `[B, H, W, C]`, 0 to 3.

    Returns:
        int64 `[B, H, W, C]`: `(y * 2W + x) * C + c` of the winner in its own image of `[2H, 2W, C]`, which is
        the op's default (`include_batch_in_index=False`).
    """
    _, height, width, channels = ops.shape(switches)
    switches = ops.cast(switches, "int64")
    rows = 2 * ops.reshape(ops.arange(height, dtype="int64"), (1, -1, 1, 1)) + switches // 2
    columns = 2 * ops.reshape(ops.arange(width, dtype="int64"), (1, 1, -1, 1)) + switches % 2
    channel = ops.reshape(ops.arange(channels, dtype="int64"), (1, 1, 1, -1))
    width, channels = ops.cast(width, "int64"), ops.cast(channels, "int64")
    return (rows * (2 * width) + columns) * channels + channel


def argmax_to_switches(argmax: KerasTensor) -> KerasTensor:
    """Converts the flat indices of `tf.nn.max_pool_with_argmax` (2x2, stride 2) to switches.

    Args:
        argmax: int64 or int32 `[B, H, W, C]`, as the op gives them without the batch in the index.

    Returns:
        uint8 `[B, H, W, C]`, 0 to 3.
    """
    _, _, width, channels = ops.shape(argmax)
    pixel = argmax // ops.cast(channels, argmax.dtype)
    full_width = ops.cast(2 * width, argmax.dtype)
    return ops.cast(2 * ((pixel // full_width) % 2) + (pixel % full_width) % 2, "uint8")
