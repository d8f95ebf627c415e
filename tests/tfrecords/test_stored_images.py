"""One image, one set of pixels: in its file, in evaluation and in training."""

import io

import image_zoo
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfrecords.images import check_stored, load_image, size_hint, store_image
from tfseg.data.images import read_image
from tfseg.data.transform import decode_image
from tfseg.errors import InputError

PLAIN, ODD, ORIENTED = image_zoo.plain(), image_zoo.odd(), image_zoo.oriented()
FEW_BITS = [name for name in ODD if ("-bit palette" in name and "alpha" not in name) or "-bit grey" in name]


def test_the_zoo_is_large():
    assert len(PLAIN) + len(ODD) + len(ORIENTED) >= 60


@pytest.mark.parametrize("name", [*PLAIN, *ODD])
def test_a_record_is_the_same_pixels_to_all_readers(name):
    data = {**PLAIN, **ODD}[name]
    stored = store_image(data, name)
    original = read_image(data)
    assert (stored.height, stored.width) == original.shape[:2]
    np.testing.assert_array_equal(read_image(stored.data), original)
    np.testing.assert_array_equal(decode_image(tf.constant(stored.data)), original)
    with Image.open(io.BytesIO(stored.data)) as image:
        assert {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}[image.format] == stored.format
    assert check_stored(stored.data, name) == (stored.format, *original.shape[:2])


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_keep_their_bytes(name):
    stored = store_image(PLAIN[name], name)
    assert stored.data == PLAIN[name]
    assert stored.notes == ()


@pytest.mark.parametrize("name", [name for name in ODD if name not in FEW_BITS])
def test_others_are_stored_as_plain_png_and_told(name):
    stored = store_image(ODD[name], name)
    assert stored.data != ODD[name]
    assert stored.notes[0].startswith("stored as PNG: ")
    with Image.open(io.BytesIO(stored.data)) as image:
        assert image.format == "PNG" and image.mode in ("L", "RGB") and not image.has_transparency_data
    np.testing.assert_array_equal(tf.io.decode_image(stored.data, channels=3), read_image(ODD[name]))


@pytest.mark.parametrize("name", ["png alpha", "png 16-bit grey", "jpeg CMYK without Adobe's marker", "gif"])
def test_older_records_of_two_sets_of_pixels_are_found(name):
    with pytest.raises(InputError, match=r"its image: (training would see|is a .* file)"):
        check_stored(ODD[name], "its image")


@pytest.mark.parametrize("name", ORIENTED)
def test_exif_is_applied_or_ignored_for_all_readers_alike(name):
    data = ORIENTED[name]
    for exif, upright in (("apply", True), ("ignore", False)):
        stored = store_image(data, name, exif)
        original = read_image(data, upright=upright)
        # Readers of records never turn them.
        np.testing.assert_array_equal(read_image(stored.data, upright=False), original)
        np.testing.assert_array_equal(decode_image(tf.constant(stored.data)), original)
        assert stored.notes[0] == f"EXIF orientation {'applied' if upright else 'ignored'}"
    with pytest.raises(InputError, match=rf"{name}: has the EXIF orientation {name[-1]}: .*--exif=apply"):
        store_image(data, name)


def test_orientation_turns_as_the_standard_says():
    left, up = np.fliplr, np.flipud
    turns = {2: left, 3: lambda a: left(up(a)), 4: up, 5: lambda a: a.swapaxes(0, 1)}
    turns |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}
    for number, turn in turns.items():
        stored = store_image(ORIENTED[f"png orientation {number}"], "a.png", "apply")
        np.testing.assert_array_equal(read_image(stored.data), turn(image_zoo.SMOOTH))


def test_orientation_1_and_damaged_exif_are_no_orientation():
    for data in (image_zoo.with_orientation("JPEG", 1), image_zoo.with_orientation("JPEG", 9)):
        assert store_image(data, "a.jpg").notes == ()
    # A directory that says nothing of its end.
    damaged = image_zoo.encode(image_zoo.RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff")
    assert store_image(damaged, "a.jpg").data == damaged
    assert read_image(damaged).shape == image_zoo.SMOOTH.shape


def test_messages_about_sizes_name_the_orientation():
    height, width = image_zoo.SMOOTH.shape[:2]
    data = ORIENTED["jpeg orientation 6"]
    with pytest.raises(
        InputError, match=rf"is {width}x{height} but annotated as {height}x{width}, which its"
    ):
        store_image(data, "a.jpg", annotated=(width, height))
    ignored, applied = store_image(data, "a.jpg", "ignore"), store_image(data, "a.jpg", "apply")
    assert "orientation 6 explains it: --exif=apply" in size_hint(ignored, width, height)
    assert "orientation 6: --exif=ignore" in size_hint(applied, height, width)
    assert size_hint(ignored, 1, 2) == size_hint(store_image(PLAIN["png"], "a"), width, height) == ""


def test_transparent_pixels_are_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 10, 20, 30, 255
    pixels[0, 1] = 0, 0, 0, 51
    stored = store_image(image_zoo.png(pixels, 8, 6), "a.png")
    expected = [[[10, 20, 30], [204, 204, 204]], [[255] * 3, [255] * 3]]
    np.testing.assert_array_equal(decode_image(tf.constant(stored.data)), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no image", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image of a known"),
        (b"%PDF-1.7\n", "not an image of a known format"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (PLAIN["jpeg grey"][:300], "cannot be decoded"),
        (PLAIN["png"][:300], "cannot be decoded"),
        (PLAIN["png text"].replace(b"tEXta\0b", b"tEXta\0c"), "PNG: broken PNG file .*tEXt"),
        (
            image_zoo.png(np.zeros((1, 1, 3)), 8, 2).replace(b"\0\0\0\1\0\0\0\1", b"\0\0\xff\xff" * 2),
            "decoded",
        ),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, data, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.jpg: .*{message}"):
        load_image(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: the image cannot be read \(No such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder, not an image"):
        load_image(tmp_path)
