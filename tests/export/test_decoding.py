"""The graph's decoder and resampling against Pillow: the same pixels, whatever the file."""

import numpy as np
import pytest
import tensorflow as tf
from image_files import broken, encode, kinds, picture

from export import decoding
from export.decoding import Header
from export.resampling import from_square, to_square
from tfseg.data.images import read_image
from tfseg.inference import postprocessing, preprocessing

SIZE = 96
FILES = tf.TensorSpec((None,), tf.string)


@tf.function(input_signature=[FILES])
def read_headers(files):
    headers = decoding.read_headers(files)
    sizes = tf.stack(decoding.upright_size(headers), axis=1)
    return sizes, decoding.header_problems(files, headers, decoding.MAX_PIXELS, 8192)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def decode(file):
    headers = decoding.read_headers(file[None])
    return decoding.decode(file, Header(*[field[0] for field in headers]))


@pytest.mark.parametrize("name", kinds())
def test_pixels_are_pillows(name):
    file = kinds()[name]
    expected = read_image(file)
    (size,), (problem,) = read_headers(tf.constant([file]))
    assert problem.numpy() == b""
    assert tuple(size.numpy()) == expected.shape[:2]
    np.testing.assert_array_equal(decode(file), expected)


def test_headers_tell_what_is_wrong_before_anything_is_decoded():
    for name, (file, said) in broken().items():
        _, (problem,) = read_headers(tf.constant([file]))
        if "cut short" in said:  # Only decoding tells.
            assert problem.numpy() == b"", name
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode(file)
        else:
            assert said in problem.numpy().decode(), name


def test_damaged_headers_never_fail():
    """Each file is judged or passed on to the decoder; a header that leads astray ends the walk."""
    rng = np.random.default_rng(0)
    files = [kinds()[name] for name in ("jpeg turned 6", "png turned 6", "palette png with a clear colour")]
    damaged = []
    for _ in range(400):
        data = bytearray(files[rng.integers(len(files))])
        for position in rng.integers(0, min(len(data), 300), 4):
            data[position] = rng.integers(256)
        damaged.append(bytes(data[: rng.integers(1, len(data))]) if rng.random() < 0.3 else bytes(data))
    sizes, problems = read_headers(tf.constant(damaged))
    assert sizes.shape == (400, 2)
    readable = problems.numpy() == b""
    assert 0 < readable.sum() < 400
    assert (sizes.numpy()[readable] >= 1).all()


SIZES = [(37, 61), (61, 37), (50, 50), (200, 75), (75, 200), (1, 30), (30, 1), (96, 96), (96, 40), (1, 1)]
SIZES += [(500, 375), (97, 96), (1, 5000), (3000, 11)]


@pytest.fixture(scope="module")
def resize():
    images = tf.TensorSpec((None, None, None, 3), tf.float32)
    scalar = tf.TensorSpec((), tf.int32)
    maps = tf.TensorSpec((None, SIZE, SIZE), tf.float32)
    return {
        fit: (
            tf.function(lambda image, fit=fit: to_square(image, SIZE, fit), input_signature=[images]),
            tf.function(
                lambda *inputs, fit=fit: from_square(*inputs, fit), input_signature=[maps, scalar, scalar]
            ),
        )
        for fit in ("pad", "stretch")
    }


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resampling_is_that_of_inference(resize, height, width, fit):
    square, restore = resize[fit]
    rng = np.random.default_rng(height)
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    expected = np.stack([preprocessing.to_square(image, SIZE, fit) for image in images])
    np.testing.assert_array_equal(square(images.astype(np.float32)), expected)  # To the last bit.
    maps = rng.random((2, SIZE, SIZE), np.float32)
    expected = postprocessing.from_square(maps, height, width, fit=fit)
    np.testing.assert_allclose(restore(maps, height, width), expected, rtol=0, atol=5e-6)


def test_an_image_of_the_networks_size_is_left_as_it_is(resize):
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize["pad"][0](images), images)


def test_a_jpeg_in_a_jpeg_is_not_taken_for_it():
    """Cameras put a small preview into the EXIF data, with headers of its own."""
    import struct

    preview = encode(picture(16, 24, seed=3).convert("RGB"), "JPEG")
    whole = encode(picture().convert("RGB"), "JPEG")
    block = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0" + preview
    file = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:]
    (size,), _ = read_headers(tf.constant([file]))
    assert tuple(size.numpy()) == (51, 77)
    np.testing.assert_array_equal(decode(file), read_image(whole))
