"""The resampling of `tfseg.inference` as graph code, so that a server needs no Pillow.

Pillow's own kernels and its rounding are followed: `to_square` gives the same bytes, `from_square` the same
floats but for the last digits (`tests/export/test_resampling.py` holds both to it).
"""

from collections.abc import Callable

import tensorflow as tf

# Pillow resamples 8-bit images with weights of this many fractional bits.
_BITS = 22
# Products of a pixel (8 bits) and a part of a weight (8 bits at most), summed, stay below 2^24:
# a float32 sum is exact then, in any order and on any device.
_PARTS = (14, 7, 0)
MAX_SHRINKAGE = 256
"""Largest ratio of an image's side to the network's at which `to_square` is exact."""


def to_square(images: tf.Tensor, size: int, fit: str = "pad") -> tf.Tensor:
    """Pads or stretches images to a square and resizes them, as `tfseg.inference.preprocessing` does.

    Args:
        images: float32 `[B, H, W, 3]`, 0 to 255.
        size: S, in pixels.
        fit: As `ModelConfig.image_fit`; `stretch` resizes each side to the square's and pads nothing.

    Returns:
        float32 `[B, S, S, 3]`; whole numbers, but for images that have fractions and are S x S already: those
        are returned as they are.
    """
    shape = tf.shape(images)
    height, width = shape[1], shape[2]

    def weights(inputs: tf.Tensor) -> tf.Tensor:
        real = _weights(_triangle, 1.0, inputs, tf.constant(size), tf.cast(inputs, tf.float64))
        return tf.floor(real * 2**_BITS + 0.5)

    long, short = tf.maximum(height, width), tf.minimum(height, width)
    of_long, long_same = weights(long), tf.equal(long, size)
    if fit == "pad":
        # What is beyond the short side is padding: zeros, whose weights need not be multiplied.
        of_short, short_same = of_long[:, :short], long_same
    else:
        of_short, short_same = weights(short), tf.equal(short, size)

    def shrink(x: tf.Tensor) -> tf.Tensor:
        """From `[B, long, short, 3]` to `[B, S of short, S of long, 3]`."""
        return _pass(of_short, tf.transpose(_pass(of_long, x, long_same), (0, 2, 1, 3)), short_same)

    # The long side goes first: the order of the two passes decides how they round.
    square = tf.cond(
        width >= height,
        lambda: shrink(tf.transpose(images, (0, 2, 1, 3))),
        lambda: tf.transpose(shrink(images), (0, 2, 1, 3)),
    )
    # Not ensure_shape, which TensorFlow.js cannot run.
    return tf.reshape(square, (shape[0], size, size, 3))


def from_square(maps: tf.Tensor, height: tf.Tensor, width: tf.Tensor, fit: str = "pad") -> tf.Tensor:
    """Brings maps over the square to an image's size, as `tfseg.inference.postprocessing` does.

    Args:
        maps: float32 `[N, S, S]`, S known.
        height: H, int32 scalar.
        width: W, int32 scalar.
        fit: As `to_square`.

    Returns:
        float32 `[N, H, W]`, bicubic: it can overshoot.
    """
    size = tf.constant(maps.shape[-1])
    scale = tf.cast(size, tf.float64) / tf.cast(tf.maximum(height, width), tf.float64)

    def weights(outputs: tf.Tensor) -> tf.Tensor:
        whole = tf.cast(size, tf.float64)
        box = whole if fit == "stretch" else tf.minimum(tf.cast(outputs, tf.float64) * scale, whole)
        return tf.cast(_weights(_cubic, 2.0, size, outputs, box), tf.float32)

    return tf.matmul(weights(height), tf.matmul(maps, weights(width), transpose_b=True))


def _pass(weights: tf.Tensor, x: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
    """Resamples axis 1 of `[B, N, M, C]` by weights of whole numbers, `[S, N]`, rounding as Pillow does."""
    shape, outputs = tf.shape(x), tf.shape(weights)[0]
    parts, rest = [], weights
    for shift in _PARTS:
        part = tf.floor(rest / 2**shift)
        rest -= part * 2**shift
        parts.append(tf.cast(part, tf.float32))
    flat = tf.reshape(x, (shape[0], shape[1], shape[2] * shape[3]))
    sums = tf.split(tf.matmul(tf.concat(parts, axis=0), flat), len(_PARTS), axis=1)
    real = sum(part * 2.0 ** (shift - _BITS) for part, shift in zip(sums, _PARTS, strict=True))
    whole = sum(tf.cast(part, tf.int32) * 2**shift for part, shift in zip(sums, _PARTS, strict=True))
    rounded = tf.cast((whole + 2 ** (_BITS - 1)) // 2**_BITS, tf.float32)
    return tf.reshape(tf.where(same, real, rounded), (shape[0], outputs, shape[2], shape[3]))


def _weights(
    kernel: Callable[[tf.Tensor], tf.Tensor],
    support: float,
    inputs: tf.Tensor,
    outputs: tf.Tensor,
    box: tf.Tensor,
) -> tf.Tensor:
    """Weights of resampling the first `box` of `inputs` samples to `outputs`, float64 `[outputs, inputs]`.

    Half-pixel centres; the kernel is widened where it shrinks, and weights of one output sum to 1.
    """
    scale = box / tf.cast(outputs, tf.float64)
    widening = tf.maximum(scale, 1.0)
    centers = ((tf.cast(tf.range(outputs), tf.float64) + 0.5) * scale)[:, None]
    positions = tf.cast(tf.range(inputs), tf.float64)[None]
    reach = support * widening
    # Pillow cuts the kernel at whole samples.
    inside = (positions >= tf.floor(centers - reach + 0.5)) & (positions < tf.floor(centers + reach + 0.5))
    found = tf.where(inside, kernel(tf.abs((positions - centers + 0.5) / widening)), 0.0)
    return found / tf.reduce_sum(found, axis=1, keepdims=True)


def _triangle(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - x, 0.0)


def _cubic(x: tf.Tensor) -> tf.Tensor:
    """Keys' kernel with a = -1/2, as MATLAB and Pillow have it."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((x - 5.0) * x + 8.0) * x - 4.0
    return tf.where(x < 1.0, near, tf.where(x < 2.0, -0.5 * far, 0.0))
