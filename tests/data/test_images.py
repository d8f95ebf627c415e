import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfseg.data.images import read_image
from tfseg.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 11, 3), np.uint8)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def read_encoded(image, format="PNG", **options):
    return read_image(encode(image, format, **options))


def test_rgb_comes_back_from_array_path_bytes_and_pillow(tmp_path):
    picture = Image.fromarray(RGB)
    path = tmp_path / "a.png"
    picture.save(path)
    for given in (RGB, str(path), path, encode(picture), picture):
        read = read_image(given)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, RGB)


def test_grey_becomes_rgb():
    grey = RGB[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(grey), expected)
    np.testing.assert_array_equal(read_image(grey[..., None]), expected)
    np.testing.assert_array_equal(read_encoded(Image.fromarray(grey)), expected)


def test_one_bit():
    bits = RGB[..., 0] > 127
    expected = np.where(bits[..., None], 255, 0).repeat(3, -1)
    np.testing.assert_array_equal(read_encoded(Image.fromarray(bits)), expected)
    np.testing.assert_array_equal(read_image(bits), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white(mode):
    picture = Image.fromarray(RGB).convert(mode)
    colors = np.asarray(picture).copy()
    colors[..., -1] = 255
    colors[0, 0, -1] = 0
    colors[1, 1, -1] = 128
    plain = read_image(np.ascontiguousarray(colors[..., :-1]))
    for read in (read_encoded(Image.fromarray(colors, mode)), read_image(colors)):
        np.testing.assert_array_equal(read[0, 0], [255, 255, 255])
        half = plain[1, 1] * (128 / 255) + 255 * (127 / 255)
        np.testing.assert_allclose(read[1, 1], half, atol=1)
        np.testing.assert_array_equal(read[2:], plain[2:])


def test_palette_with_and_without_transparency():
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    np.testing.assert_array_equal(read_encoded(picture)[0], [[10, 20, 30], [200, 100, 50]])
    read = read_encoded(picture, transparency=1)
    np.testing.assert_array_equal(read[0], [[10, 20, 30], [255, 255, 255]])


def test_sixteen_bits_are_scaled():
    wide = np.array([[0, 257, 65535], [32896, 128, 65278]], np.uint16)
    expected = np.array([[0, 1, 255], [128, 0, 254]])
    np.testing.assert_array_equal(read_image(wide)[..., 1], expected)
    np.testing.assert_array_equal(read_encoded(Image.fromarray(wide))[..., 0], expected)
    np.testing.assert_array_equal(read_encoded(Image.fromarray(wide), "TIFF")[..., 2], expected)


@pytest.mark.parametrize("high", [1, 255])
def test_32_bit_grey_of_bytes_is_not_taken_for_16_bits(high):
    grey = (np.arange(256, dtype=np.int32).reshape(16, 16) * high) // 255
    picture = Image.fromarray(grey)
    assert picture.mode == "I"
    for read in (read_image(picture), read_encoded(picture, "TIFF"), read_image(grey)):
        np.testing.assert_array_equal(read[..., 0], grey)


def test_dark_16_bits_stay_dark():
    """Values up to 255 are nearly black where the format says 16 bits."""
    dark = np.full((2, 3), 200, np.uint16)
    pgm = b"P5 3 2 65535\n" + dark.astype(">u2").tobytes()
    assert Image.open(io.BytesIO(pgm)).mode == "I"
    for read in (read_image(pgm), read_encoded(Image.fromarray(dark)), read_image(dark)):
        assert (read == 1).all()


def test_floats_in_0_to_1_and_in_0_to_255():
    np.testing.assert_array_equal(read_image(RGB / 255.0), RGB)
    np.testing.assert_array_equal(read_image(RGB.astype(np.float32)), RGB)
    np.testing.assert_array_equal(read_image(RGB.astype(np.int64)), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    upright = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40
    # What a camera stores so that the tag turns it upright; EXIF 2.3, table of orientations.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(read_image(data)[..., 0], upright)
    np.testing.assert_array_equal(read_image(data, upright=False)[..., 0], stored)


def test_cmyk_jpeg():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(read_encoded(cmyk, "JPEG")[8, 8], [255, 0, 0], atol=6)


def test_first_of_several_frames():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    read = read_encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read[0, 0], [255, 0, 0])


def png_claiming(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"\x89PNG\r\n\x1a\n"
    for length, chunk in ((13, header), (4, b"IDAT\x78\x9c\0\0")):
        chunks += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return chunks


@pytest.mark.parametrize("side", [8_100, 60_000])
def test_bomb_is_refused_by_its_header(side):
    # No pixels follow the header: the file cannot have been decoded.
    with pytest.raises(InputError, match="pixels"):
        read_image(png_claiming(side, side))


@pytest.mark.parametrize(("width", "height"), [(2_000_000, 1), (1, 2_000_000)])
def test_long_strips_are_refused(width, height):
    """Few pixels, but the square on the way to the network would take gigabytes."""
    with pytest.raises(InputError, match=rf"{width}x{height} pixels; allowed are 100,000 on a side"):
        read_image(png_claiming(width, height))
    with pytest.raises(InputError, match="on a side"):
        read_image(np.zeros((height, width), np.uint8))
    assert read_image(np.zeros((1, 100_000), np.uint8)).shape == (1, 100_000, 3)


def test_pixel_limit_can_be_set():
    with pytest.raises(InputError, match=r"11x7 pixels; allowed are 76 in all"):
        read_image(encode(Image.fromarray(RGB)), max_pixels=76)
    assert read_image(encode(Image.fromarray(RGB)), max_pixels=77).shape == (7, 11, 3)


def test_errors_name_the_file(tmp_path):
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    files = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"hello there", "is not an image of a known format"),
        "cut.jpg": (encode(noise, "JPEG")[:900], "cannot be decoded"),
        "cut.png": (encode(noise)[:900], "cannot be decoded"),
        "header.png": (png_claiming(8, 8), "cannot be decoded"),
    }
    for name, (data, reason) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match=r"none\.jpg.*No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.full((4, 4), -1), "allowed are 0 to 255"),
        (np.full((4, 4), 300), "allowed are 0 to 255"),
        (np.full((4, 4), np.nan), "allowed are 0 to 255"),
        (np.full((4, 4), "a"), "allowed are numbers"),
    ],
)
def test_arrays_that_are_no_images(array, reason):
    with pytest.raises(InputError, match=f"frame 7.*{reason}"):
        read_image(array, name="frame 7")


def test_result_is_a_copy():
    array = RGB.copy()
    read = read_image(array)
    array[:] = 0
    np.testing.assert_array_equal(read, RGB)
    read[:] = 1


def test_other_types():
    with pytest.raises(InputError, match="NoneType"):
        read_image(None)
