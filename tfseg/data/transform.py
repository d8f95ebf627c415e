"""From a stored image to a training example (SPEC 4.5), as graph code of TensorFlow."""

import dataclasses
from typing import Literal, NamedTuple

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
    """Decodes an index PNG to uint8 `[H, W]`, the size of its image, which is an error else."""
    mask = tf.ensure_shape(tf.io.decode_png(encoded, channels=1), (None, None, 1))[..., 0]
    same = tf.reduce_all(tf.equal(tf.shape(mask), tf.shape(image)[:2]))
    # The bare operation: tf.debugging.assert_equal adds some twenty.
    check = tf.raw_ops.Assert(condition=same, data=["mask of another size"])
    with tf.control_dependencies([] if check is None else [check]):  # Eagerly it has raised already.
        return tf.identity(mask)


def binary_mask(mask: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """The target of the segmentation loss for one label (SPEC 4.5, step 4).

    Args:
        mask: uint8 of any shape, pixel = label id, 0 background, 255 ignored.
        label: Scalar label id.

    Returns:
        uint8 of the same shape: 1 where the mask is `label`, 255 where it is ignored, else 0; other
        categories are background.
    """
    is_label = tf.cast(tf.equal(mask, tf.cast(label, mask.dtype)), tf.uint8)
    return tf.where(tf.equal(mask, IGNORE_LABEL), tf.constant(IGNORE_LABEL, tf.uint8), is_label)


class View(NamedTuple):
    """What of the resized square an example shows.

    Attributes:
        top: Scalar int32, first row.
        left: Scalar int32, first column.
        mirrored: Scalar bool, whether left and right are exchanged.
    """

    top: tf.Tensor
    left: tf.Tensor
    mirrored: tf.Tensor


def draw_view(transform: Transform, seed: tf.Tensor) -> View:
    """Draws crop and mirroring; int64 `[2]` of the same values always draws the same."""
    margin = transform.resize_to - transform.image_size
    # One operation of what are six in tf.random.stateless_uniform, with the same numbers.
    top, left, coin = tf.unstack(tf.raw_ops.StatelessRandomUniform(shape=(3,), seed=seed))
    if transform.random_crop:
        top, left = (tf.cast(draw * (margin + 1), tf.int32) for draw in (top, left))
    else:
        top = left = tf.constant(margin // 2)
    return View(top, left, coin < 0.5 if transform.mirror else tf.constant(False))


def view_image(transform: Transform, view: View, image: tf.Tensor) -> tf.Tensor:
    """Pads an image to a square, resizes, crops and mirrors it.

    Padding is at the bottom and right and black (before any mean is subtracted), as inference pads.

    Args:
        transform: Sizes and switches.
        view: Crop and mirroring.
        image: uint8 RGB `[H, W, 3]`.

    Returns:
        float32 `[S, S, 3]` in 0 to 255.
    """
    size = transform.image_size
    if transform.fit == "pad":
        image = _resize_padded(image, transform.resize_to)
    else:  # Antialiased, as inference resizes.
        image = tf.image.resize(image, (transform.resize_to, transform.resize_to), antialias=True)
    image = tf.slice(image, (view.top, view.left, 0), (size, size, 3))
    # Not image[:, ::-1]: strides below 0 take ten times as long.
    return tf.cond(view.mirrored, lambda: tf.reverse(image, [1]), lambda: image)


def view_mask(transform: Transform, view: View, mask: tf.Tensor) -> tf.Tensor:
    """Does with a mask what `view_image` does with its image; padding is 255.

    Args:
        transform: Sizes and switches.
        view: Crop and mirroring.
        mask: uint8 `[H, W]`.

    Returns:
        uint8 `[S, S]`.
    """
    shape = tf.shape(mask)
    sides = tf.fill((2,), tf.reduce_max(shape)) if transform.fit == "pad" else shape
    # Behind the last row and column stands one more: every pixel of the padding is read from there.
    mask = tf.pad(mask, ((0, 1), (0, 1)), constant_values=IGNORE_LABEL)
    # The pixels that "nearest" takes, as TensorFlow computes it: int32 [2, S], rows and columns.
    wanted = (
        tf.range(0.5, transform.image_size) + tf.cast(tf.stack((view.top, view.left)), tf.float32)[:, None]
    )
    scale = tf.cast(sides, tf.float32) / transform.resize_to
    pixels = tf.cast(tf.floor(wanted * scale[:, None]), tf.int32)
    rows, columns = tf.unstack(tf.minimum(pixels, tf.minimum(sides - 1, shape)[:, None]))
    columns = tf.cond(view.mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    # Rows are copied whole; columns, pixel by pixel, would take longer than turning the mask twice.
    return tf.transpose(tf.gather(tf.transpose(tf.gather(mask, rows)), columns))


def _resize_padded(image: tf.Tensor, size: int) -> tf.Tensor:
    """Pads an image with black at the bottom or right to a square, and resizes that to `[size, size, C]`."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.maximum(height, width)

    def square() -> tf.Tensor:
        return tf.pad(image, ((0, side - height), (0, side - width), (0, 0)))

    # The square of a panorama can be thousands of times the image.
    return tf.cond(
        side <= 2 * tf.minimum(height, width),
        lambda: tf.image.resize(square(), (size, size)),
        lambda: _resize_long(image, size),
    )


def _resize_long(image: tf.Tensor, size: int) -> tf.Tensor:
    """As `_resize_padded`, but the square is never made.

    Resizing is separable: the long side needs no padding and goes first; the short side then reads 0 wherever
    it would read padding.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    return tf.cond(
        width >= height,
        lambda: _resize_short_side(tf.image.resize(image, (height, size)), width, axis=0),
        lambda: _resize_short_side(tf.image.resize(image, (size, width)), height, axis=1),
    )


def _resize_short_side(image: tf.Tensor, side: tf.Tensor, axis: int) -> tf.Tensor:
    """Resizes one axis, as if it had `side` pixels, to the length of the other, as TensorFlow computes it."""
    length, size = tf.shape(image)[axis], tf.shape(image)[1 - axis]
    scale = tf.cast(side, tf.float32) / tf.cast(size, tf.float32)
    centre = (tf.range(tf.cast(size, tf.float32)) + 0.5) * scale - 0.5

    def pixels(index: tf.Tensor) -> tf.Tensor:
        index = tf.cast(tf.clip_by_value(index, 0.0, tf.cast(side - 1, tf.float32)), tf.int32)
        inside = tf.reshape(index < length, (-1, 1, 1) if axis == 0 else (1, -1, 1))
        found = tf.gather(image, tf.minimum(index, length - 1), axis=axis)
        return tf.where(inside, found, 0.0)

    before, after = tf.floor(centre), tf.math.ceil(centre)
    part = tf.reshape(centre - before, (-1, 1, 1) if axis == 0 else (1, -1, 1))
    return pixels(before) + (pixels(after) - pixels(before)) * part
