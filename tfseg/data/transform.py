"""From a stored image to a training example (SPEC 4.5), as graph code of TensorFlow."""

import dataclasses
from typing import Literal

import tensorflow as tf

from tfseg.errors import InputError
from tfseg.losses import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Transform:
    """The geometry of training examples.

    Attributes:
        image_size: Side of the example, in pixels.
        resize_to: Side to which the square is resized before cropping; the authors' 330 for 320.
        mirror: Whether half of the examples are mirrored left to right.
        random_crop: Random crop position; False crops the centre.
        fit: As `ModelConfig.image_fit`.

    Raises:
        InputError: If `resize_to` is below `image_size`.
    """

    image_size: int
    resize_to: int
    mirror: bool = True
    random_crop: bool = True
    fit: Literal["pad", "stretch"] = "pad"

    def __post_init__(self) -> None:
        """Refuses crops that are larger than what they are cut from."""
        if self.resize_to < self.image_size:
            raise InputError(f"resize_to={self.resize_to}: must be at least image_size={self.image_size}")


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG or PNG bytes to uint8 RGB `[H, W, 3]`, the pixels that `read_image` gives of a record."""
    # It reads PNG as well. TensorFlow's other decoders take the fast, inexact DCT: up to 17 off of 255.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (None, None, 3))


def decode_mask(encoded: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Decodes an index PNG to uint8 `[H, W]`; an empty string gives the image's size full of 255."""
    shape = tf.shape(image)[:2]

    def decoded() -> tf.Tensor:
        mask = tf.ensure_shape(tf.io.decode_png(encoded, channels=1), (None, None, 1))[..., 0]
        with tf.control_dependencies(
            [tf.debugging.assert_equal(tf.shape(mask), shape, "mask of another size")]
        ):
            return tf.identity(mask)

    empty = tf.equal(tf.strings.length(encoded), 0)
    return tf.cond(empty, lambda: tf.fill(shape, tf.constant(IGNORE_LABEL, tf.uint8)), decoded)


def binary_mask(mask: tf.Tensor, label: tf.Tensor, use_mask: tf.Tensor) -> tf.Tensor:
    """The target of the segmentation loss for one label (SPEC 4.5, step 4).

    Args:
        mask: uint8 of any shape, pixel = label id, 0 background, 255 ignored.
        label: Scalar label id.
        use_mask: Scalar bool; False hides every pixel, as target masks must be.

    Returns:
        uint8 of the same shape: 1 where the mask is `label`, 255 where it is ignored or hidden, else 0; other
        categories are background.
    """
    is_label = tf.cast(tf.equal(mask, tf.cast(label, mask.dtype)), tf.uint8)
    binary = tf.where(tf.equal(mask, IGNORE_LABEL), tf.constant(IGNORE_LABEL, tf.uint8), is_label)
    return tf.where(use_mask, binary, tf.constant(IGNORE_LABEL, tf.uint8))


def apply(
    transform: Transform, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads to a square, resizes, crops and mirrors image and mask alike.

    Padding is at the bottom and right, black for the image (before any mean is subtracted) and 255 for
    the mask, as inference pads.

    Args:
        transform: Sizes and switches.
        image: uint8 RGB `[H, W, 3]`.
        mask: uint8 `[H, W]`.
        seed: int64 `[2]`; the same seed gives the same crop and mirroring.

    Returns:
        `(image, mask)`: float32 `[S, S, 3]` in 0 to 255 and uint8 `[S, S]`.
    """
    if transform.fit == "pad":
        image = _resize_padded(image, transform.resize_to, "bilinear", padding=0)
        mask = _resize_padded(mask[..., None], transform.resize_to, "nearest", padding=IGNORE_LABEL)
    else:  # Antialiased, as inference resizes.
        resized = (transform.resize_to, transform.resize_to)
        image = tf.image.resize(image, resized, "bilinear", antialias=True)
        mask = tf.image.resize(mask[..., None], resized, "nearest")

    y, x, mirrored = _choices(transform, seed)
    size = transform.image_size
    image = tf.slice(image, (y, x, 0), (size, size, 3))
    mask = tf.slice(mask, (y, x, 0), (size, size, 1))
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    mask = tf.cond(mirrored, lambda: mask[:, ::-1], lambda: mask)
    return tf.ensure_shape(image, (size, size, 3)), tf.ensure_shape(mask, (size, size, 1))[..., 0]


def _resize_padded(image: tf.Tensor, size: int, method: str, padding: int) -> tf.Tensor:
    """Resizes an image as if it were padded at the bottom or right to a square, which is never made.

    The square of a panorama can be thousands of times the image. Resizing is separable: the long side needs
    no padding and goes first; the short side then reads a constant wherever it would read padding.

    Args:
        image: `[H, W, C]`.
        size: Side of the result.
        method: `bilinear` or `nearest`.
        padding: Value of the pixels beyond the image.

    Returns:
        `[size, size, C]`, float32 for `bilinear`, else of the image's dtype.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    return tf.cond(
        width >= height,
        lambda: _resize_short_side(tf.image.resize(image, (height, size), method), width, 0, method, padding),
        lambda: _resize_short_side(tf.image.resize(image, (size, width), method), height, 1, method, padding),
    )


def _resize_short_side(image: tf.Tensor, side: tf.Tensor, axis: int, method: str, padding: int) -> tf.Tensor:
    """Resizes one axis, as if it had `side` pixels, to the length of the other, as TensorFlow computes it."""
    length, size = tf.shape(image)[axis], tf.shape(image)[1 - axis]
    scale = tf.cast(side, tf.float32) / tf.cast(size, tf.float32)
    centre = (tf.range(tf.cast(size, tf.float32)) + 0.5) * scale

    def pixels(index: tf.Tensor) -> tf.Tensor:
        index = tf.cast(tf.clip_by_value(index, 0.0, tf.cast(side - 1, tf.float32)), tf.int32)
        inside = tf.reshape(index < length, (-1, 1, 1) if axis == 0 else (1, -1, 1))
        found = tf.gather(image, tf.minimum(index, length - 1), axis=axis)
        return tf.where(inside, found, tf.cast(padding, image.dtype))

    if method == "nearest":
        return pixels(tf.floor(centre))
    before, after = tf.floor(centre - 0.5), tf.math.ceil(centre - 0.5)
    part = tf.reshape(centre - 0.5 - before, (-1, 1, 1) if axis == 0 else (1, -1, 1))
    return pixels(before) + (pixels(after) - pixels(before)) * part


def _choices(transform: Transform, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    margin = transform.resize_to - transform.image_size
    draws = tf.random.stateless_uniform((3,), seed, maxval=1.0)
    if transform.random_crop:
        offsets = tf.cast(draws[:2] * (margin + 1), tf.int32)
        y, x = offsets[0], offsets[1]
    else:
        y = x = tf.constant(margin // 2)
    return y, x, tf.logical_and(transform.mirror, draws[2] < 0.5)
