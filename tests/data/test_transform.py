"""The geometry of training examples, against NumPy loops."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy_transform
import pytest
import tensorflow as tf
from PIL import Image

from tfseg.data.transform import (
    Transform,
    binary_mask,
    decode_image,
    decode_mask,
    draw_view,
    view_image,
    view_mask,
)

REPOSITORY = Path(__file__).resolve().parents[2]
CENTRE = {"mirror": False, "random_crop": False}


def _sample(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return image, rng.choice([0, 1, 2, 7, 255], (height, width)).astype(np.uint8)


def _apply(transform, image, mask, seed=(0, 0)):
    view = draw_view(transform, tf.constant(seed, tf.int64))
    shown = view_image(transform, view, tf.constant(image)), view_mask(transform, view, tf.constant(mask))
    return tuple(output.numpy() for output in shown)


@pytest.mark.parametrize("height, width", [(48, 64), (64, 48), (64, 64), (1, 9), (500, 375)])
def test_padding_is_bottom_and_right_black_and_ignored(height, width):
    image, mask = _sample(height, width)
    side = max(height, width)
    got = _apply(Transform(side, side, **CENTRE), image, mask)
    for actual, expected in zip(got, numpy_transform.pad(image, mask), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert got[0].dtype == np.float32 and got[1].dtype == np.uint8


@pytest.mark.parametrize("height, width", [(480, 640), (200, 150), (330, 330), (7, 3)])
@pytest.mark.parametrize("size, resize_to", [(320, 330), (96, 99)])
def test_resized_image_and_mask(height, width, size, resize_to):
    image, mask = _sample(height, width)
    square, square_mask = numpy_transform.pad(image, mask)
    margin = (resize_to - size) // 2
    inside = slice(margin, margin + size)
    got_image, got_mask = _apply(Transform(size, resize_to, **CENTRE), image, mask)
    expected = numpy_transform.bilinear(square.astype(np.float64), resize_to)[inside, inside]
    np.testing.assert_allclose(got_image, expected, atol=0.05)
    before, behind = (
        numpy_transform.nearest(square_mask, resize_to, side)[inside, inside] for side in (-1, 1)
    )
    np.testing.assert_array_equal(got_mask[before == behind], before[before == behind])
    assert (before == behind).mean() > 0.3


@pytest.mark.parametrize(
    "height, width",
    [(375, 500), (500, 375), (333, 500), (427, 640), (640, 427), (96, 96), (331, 329), (1, 900), (900, 7)],
)
@pytest.mark.parametrize("size", [320, 96])
def test_the_same_as_resizing_the_padded_square(height, width, size):
    """The padded square is never made; TensorFlow's resize of it gives the same pixels."""
    image, mask = _sample(height, width)
    square, square_mask = numpy_transform.pad(image, mask)
    got_image, got_mask = _apply(Transform(size, size, **CENTRE), image, mask)
    expected = tf.image.resize(square, (size, size), "bilinear").numpy()
    if height <= 2 * width:
        np.testing.assert_array_equal(got_image, expected)
    else:  # The two axes are interpolated in the other order.
        np.testing.assert_allclose(got_image, expected, rtol=0, atol=1e-4)
    nearest = tf.image.resize(square_mask[..., None], (size, size), "nearest")[..., 0]
    np.testing.assert_array_equal(got_mask, nearest)


_PANORAMA = """
import resource
import tensorflow as tf
from tfseg.data.transform import Transform, draw_view, view_image, view_mask

@tf.function
def view(image, mask):
    transform = Transform(96, 99)
    view = draw_view(transform, tf.constant([0, 0], tf.int64))
    return view_image(transform, view, image), view_mask(transform, view, mask)

def peak(height, width):
    view(tf.zeros((height, width, 3), tf.uint8), tf.zeros((height, width), tf.uint8))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak(20, 30)
print(max(peak(20, 20000), peak(20000, 20)) - before)
"""


def test_a_panorama_takes_memory_of_its_own_order():
    """A mask of 20000x20 pixels is 0.4 MB, its image 1.2 MB; their padded squares would be 1.6 GB."""
    done = subprocess.run(
        [sys.executable, "-c", _PANORAMA], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert int(done.stdout) < 100_000  # kB; most of it is TensorFlow's own.


def _random_views(count=600, size=20, resize_to=30):
    """Offsets and mirrorings that `apply` took, read off an image whose colours are coordinates."""
    y, x = np.mgrid[:resize_to, :resize_to]
    image = np.stack([y, x, np.zeros_like(y)], axis=-1).astype(np.uint8)
    mask = (y * 8 % 251).astype(np.uint8)
    transform = Transform(size, resize_to)

    @tf.function
    def view(seed):
        drawn = draw_view(transform, seed)
        return view_image(transform, drawn, tf.constant(image)), view_mask(
            transform, drawn, tf.constant(mask)
        )

    views = []
    for i in range(count):
        got, got_mask = (value.numpy() for value in view(tf.constant([5, i], tf.int64)))
        top, left = int(got[0, 0, 0]), int(min(got[0, 0, 1], got[0, -1, 1]))
        mirrored = bool(got[0, 0, 1] > got[0, -1, 1])
        expected = image[top : top + size, left : left + size]
        np.testing.assert_array_equal(got, expected[:, ::-1] if mirrored else expected)
        np.testing.assert_array_equal(got_mask, (got[..., 0] * 8 % 251).astype(np.uint8))
        views.append((top, left, mirrored))
    return np.array(views)


def test_crops_reach_every_offset_and_half_are_mirrored():
    views = _random_views()
    for axis in (0, 1):
        offsets, counts = np.unique(views[:, axis], return_counts=True)
        assert offsets.tolist() == list(range(11))  # 0 to 10 on each axis.
        assert counts.min() > 600 / 11 / 2 and counts.max() < 2 * 600 / 11
    assert abs(views[:, 2].mean() - 0.5) < 5 * 0.5 / np.sqrt(600)
    # Rows, columns and mirroring are drawn apart.
    assert np.abs(np.corrcoef(views.T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(600)


def test_official_sizes_crop_0_to_10():
    image = np.zeros((330, 330, 3), np.uint8)
    image[..., 0] = np.arange(330)[:, None] % 256
    transform = Transform(320, 330, mirror=False)
    tops = {int(_apply(transform, image, image[..., 0], (1, i))[0][0, 0, 0]) for i in range(120)}
    assert tops == set(range(11))


def test_an_asymmetric_marker_stays_where_its_mask_says():
    image, mask = np.zeros((100, 140, 3), np.uint8), np.zeros((100, 140), np.uint8)
    for rows, columns in ((slice(10, 70), slice(20, 40)), (slice(10, 30), slice(40, 90))):
        image[rows, columns], mask[rows, columns] = 200, 4
    shapes = set()
    for i in range(30):
        got, got_mask = _apply(Transform(96, 106), image, mask, (2, i))
        solid = (got[..., 0] > 150) == (got_mask == 4)
        edge = (got[..., 0] > 0.5) & (got[..., 0] < 199.5)
        assert (solid | edge).all() and edge.mean() < 0.1
        assert (got_mask == 4).any() and (got_mask == 255).any()  # What was padded is ignored.
        assert not got[got_mask == 255].any()
        shapes.add(got_mask.tobytes())
    assert len(shapes) > 20


def test_views_are_drawn_by_tensorflows_generator():
    transform = Transform(20, 37)
    for i in range(50):
        seed = tf.constant([7, i], tf.int64)
        draws = tf.random.stateless_uniform((3,), seed).numpy()
        top, left, mirrored = (value.numpy() for value in draw_view(transform, seed))
        assert (top, left, mirrored) == (int(draws[0] * 18), int(draws[1] * 18), draws[2] < 0.5)


def test_the_seed_alone_decides():
    image, mask = _sample(40, 50)
    transform = Transform(32, 44)
    first = [_apply(transform, image, mask, (3, i)) for i in range(8)]
    tf.random.set_seed(1234)
    again = [_apply(transform, image, mask, (3, i)) for i in range(8)]
    other = [_apply(transform, image, mask, (4, i)) for i in range(8)]
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])
    assert any((left[0] != right[0]).any() for left, right in zip(first, other, strict=True))
    assert len({image.tobytes() for image, _ in first}) > 4


def test_mirroring_can_be_switched_off():
    ramp = np.tile(np.arange(30, dtype=np.uint8)[None, :, None], (30, 1, 3))
    for i in range(30):
        got, _ = _apply(Transform(20, 30, mirror=False), ramp, ramp[..., 0], (0, i))
        assert got[0, 0, 0] < got[0, -1, 0]


def test_binary_mask_of_every_value():
    values = np.arange(256).astype(np.uint8)
    for label in (1, 17, 80, 254):
        expected = [1 if v == label else 255 if v == 255 else 0 for v in range(256)]
        got = binary_mask(tf.constant(values), tf.constant(label, tf.int32))
        assert got.numpy().tolist() == expected and got.dtype == tf.uint8


def _encode(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_decoding():
    image, mask = _sample(10, 12)
    np.testing.assert_array_equal(decode_image(_encode(image, "PNG")), image)
    with Image.open(io.BytesIO(_encode(image, "JPEG"))) as theirs:
        np.testing.assert_array_equal(decode_image(_encode(image, "JPEG")), np.asarray(theirs))
    grey = decode_image(_encode(image[..., 0], "PNG"))
    np.testing.assert_array_equal(grey, np.repeat(image[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(decode_mask(_encode(mask, "PNG"), tf.constant(image)), mask)
    with pytest.raises(tf.errors.InvalidArgumentError, match="mask of another size"):
        decode_mask(_encode(mask[:, 1:], "PNG"), tf.constant(image))


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (420, 420), (97, 400)])
def test_stretched_image_is_pillows_antialiased_resize(height, width):
    image, mask = _sample(height, width)
    got_image, got_mask = _apply(Transform(96, 96, fit="stretch", **CENTRE), image, mask)
    expected = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR), np.float32)
    # Pillow rounds after each axis.
    np.testing.assert_allclose(got_image, expected, atol=1.5)
    rows = ((np.arange(96) + 0.5) * height / 96).astype(int)
    columns = ((np.arange(96) + 0.5) * width / 96).astype(int)
    assert (got_mask == mask[rows][:, columns]).mean() > 0.95
    assert not (got_mask[-1] == 255).all()
