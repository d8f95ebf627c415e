"""From a stored image to a training example (SPEC 4.5), as graph code of TensorFlow."""

import dataclasses

import tensorflow as tf

from tfseg.errors import InputError
from tfseg.losses import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Transform:
    """The geometry of training examples.

    Attributes:
        image_size: Side of the example, in pixels.
        resize_to: Side to which the padded square is resized before cropping; the authors' 330 for 320.
        mirror: Whether half of the examples are mirrored left to right.
        random_crop: Random crop position; False crops the centre.

    Raises:
        InputError: If `resize_to` is below `image_size`.
    """

    image_size: int
    resize_to: int
    mirror: bool = True
    random_crop: bool = True

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
    return tf.cond(
        tf.equal(tf.strings.length(encoded), 0),
        lambda: tf.fill(shape, tf.constant(IGNORE_LABEL, tf.uint8)),
        lambda: tf.ensure_shape(tf.io.decode_png(encoded, channels=1), (None, None, 1))[..., 0],
    )


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
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.maximum(height, width)
    bottom_right = [[0, side - height], [0, side - width]]
    image = tf.pad(image, [*bottom_right, [0, 0]])
    mask = tf.pad(mask, bottom_right, constant_values=IGNORE_LABEL)

    resized = (transform.resize_to, transform.resize_to)
    image = tf.image.resize(image, resized, "bilinear")
    mask = tf.image.resize(mask[..., None], resized, "nearest")

    y, x, mirrored = _choices(transform, seed)
    size = transform.image_size
    image = tf.slice(image, (y, x, 0), (size, size, 3))
    mask = tf.slice(mask, (y, x, 0), (size, size, 1))
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    mask = tf.cond(mirrored, lambda: mask[:, ::-1], lambda: mask)
    return tf.ensure_shape(image, (size, size, 3)), tf.ensure_shape(mask, (size, size, 1))[..., 0]


def _choices(transform: Transform, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    margin = transform.resize_to - transform.image_size
    draws = tf.random.stateless_uniform((3,), seed, maxval=1.0)
    if transform.random_crop:
        offsets = tf.cast(draws[:2] * (margin + 1), tf.int32)
        y, x = offsets[0], offsets[1]
    else:
        y = x = tf.constant(margin // 2)
    return y, x, tf.logical_and(transform.mirror, draws[2] < 0.5)
