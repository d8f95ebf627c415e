"""Image files as graph code: the pixels that `tfseg.data.images.read_image` gives of a JPEG or PNG.

What a file claims is read from its header first, and refused there when it is too large: 420 kB of PNG can
unpack to gigabytes. EXIF rotation is applied, what is transparent shows white, 16 bits become 8.
"""

from typing import NamedTuple

import tensorflow as tf

MAX_PIXELS = 25_000_000
MAX_SIDE = 16_384
UNKNOWN, JPEG, PNG = 0, 1, 2
_NAMES = ("unknown", "JPEG", "PNG")
_GREY, _GREY_ALPHA, _RGBA = 0, 4, 6  # Colour types of a PNG.


class Header(NamedTuple):
    """What a file's header says; all int32 scalars, or `[B]` for a batch.

    Attributes:
        kind: `JPEG`, `PNG` or `UNKNOWN`.
        height: As it is stored, before EXIF rotation; 0 where the header is damaged.
        width: As `height`.
        channels: Components of a JPEG, colour type of a PNG.
        depth: Bits of a sample.
        marked: 1 for a JPEG with Adobe's marker, and for a PNG with transparency; else 0.
        orientation: EXIF orientation, 1 to 8.
    """

    kind: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    channels: tf.Tensor
    depth: tf.Tensor
    marked: tf.Tensor
    orientation: tf.Tensor


def read_headers(files: tf.Tensor) -> Header:
    """Reads the headers of a batch of files, string `[B]`; nothing is decoded and nothing fails."""
    specification = Header(*[tf.TensorSpec((), tf.int32)] * len(Header._fields))
    return tf.map_fn(_read_header, files, fn_output_signature=specification)


def header_problems(files: tf.Tensor, headers: Header, max_pixels: int, max_side: int) -> tf.Tensor:
    """Says what is wrong with each file before it is decoded: string `[B]`, empty where nothing is."""
    size = tf.strings.join([_text(headers.width), "x", _text(headers.height)])
    pixels = tf.cast(headers.height, tf.int64) * tf.cast(headers.width, tf.int64)
    too_large = (pixels > max_pixels) | (tf.maximum(headers.height, headers.width) > max_side)
    is_jpeg = headers.kind == JPEG
    problems = [
        (tf.strings.length(files) == 0, "is empty; allowed are JPEG and PNG files"),
        (headers.kind == UNKNOWN, "is no JPEG and no PNG file; allowed are these two"),
        (tf.minimum(headers.height, headers.width) < 1, "has a damaged or incomplete header"),
        (
            too_large,
            tf.strings.join(
                ["has ", size, f" pixels; allowed are {max_pixels} in all and {max_side} along a side"]
            ),
        ),
        (
            is_jpeg & (headers.channels != 1) & (headers.channels != 3) & (headers.channels != 4),
            tf.strings.join(["has ", _text(headers.channels), " components; allowed are 1, 3 and 4"]),
        ),
        (
            is_jpeg & (headers.channels == 4) & (headers.marked == 0),
            # Readers disagree on which of two negatives it shows.
            "is a CMYK JPEG without the marker of Adobe; allowed are those with it, grey and RGB",
        ),
        (
            is_jpeg & (headers.depth != 8),
            tf.strings.join(["is a JPEG of ", _text(headers.depth), " bits; allowed are 8"]),
        ),
    ]
    found = tf.zeros_like(files)
    for wrong, words in reversed(problems):
        found = tf.where(wrong, words, found)
    return found


def upright_size(header: Header) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (height, width) after EXIF rotation."""
    turned = header.orientation >= 5
    return tf.where(turned, header.width, header.height), tf.where(turned, header.height, header.width)


def describe(header: Header) -> tf.Tensor:
    """Names a file's format and size for a message."""
    size = tf.strings.join([_text(header.width), "x", _text(header.height)])
    return tf.strings.join([tf.gather(_NAMES, header.kind), " of ", size, " pixels"])


def decode(file: tf.Tensor, header: Header) -> tf.Tensor:
    """Decodes one file, string scalar, to uint8 RGB `[H, W, 3]`, upright and on white.

    Raises:
        tf.errors.InvalidArgumentError: If the file is damaged or cut short.
    """
    branches = [
        lambda: tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"),
        # Without transparency TensorFlow's fourth channel is wrong below 8 bits.
        lambda: tf.io.decode_png(file, channels=3),
        lambda: _on_white(tf.io.decode_png(file, channels=4)),
        lambda: _grey_of_16_bits(tf.io.decode_png(file, channels=1, dtype=tf.uint16)),
    ]
    grey16 = (header.channels == _GREY) & (header.depth == 16)
    of_png = tf.where(grey16, 3, tf.where(header.marked == 1, 2, 1))
    branch = tf.where(header.kind == JPEG, 0, of_png)
    image = tf.ensure_shape(tf.switch_case(branch, branches), (None, None, 3))
    o = header.orientation
    image = tf.transpose(image, tf.where(o >= 5, [1, 0, 2], [0, 1, 2]))
    left_right = (o == 2) | (o == 3) | (o == 6) | (o == 7)
    upside_down = (o == 3) | (o == 4) | (o == 7) | (o == 8)
    image = tf.cond(left_right, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)


def _on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Pillow's `alpha_composite` on an opaque white ground, to the last bit."""
    colors, alpha = tf.cast(rgba[..., :3], tf.int32), tf.cast(rgba[..., 3:], tf.int32)
    mixed = (colors * alpha + 255 * (255 - alpha)) * 128 + 0x4000
    return tf.cast(((mixed // 256 + mixed) // 256) // 128, tf.uint8)


def _grey_of_16_bits(grey: tf.Tensor) -> tf.Tensor:
    levels = (tf.cast(grey, tf.int32) + 128) // 257
    return tf.tile(tf.cast(levels, tf.uint8), (1, 1, 3))


def _text(number: tf.Tensor) -> tf.Tensor:
    return tf.strings.as_string(number)


class _Bytes:
    """The bytes of a file by position, int64; beyond the end they are 0."""

    def __init__(self, file: tf.Tensor) -> None:
        self._bytes = tf.concat([tf.io.decode_raw(file, tf.uint8), [0]], axis=0)
        self.length = tf.size(self._bytes, tf.int64) - 1

    def __call__(self, position: tf.Tensor | int) -> tf.Tensor:
        position = tf.cast(position, tf.int64)
        inside = (position >= 0) & (position < self.length)
        return tf.cast(tf.gather(self._bytes, tf.where(inside, position, self.length)), tf.int64)

    def big(self, position: tf.Tensor | int, count: int) -> tf.Tensor:
        """A whole number of `count` bytes, the highest first."""
        number = self(position)
        for offset in range(1, count):
            number = number * 256 + self(position + offset)
        return number

    def ordered(self, position: tf.Tensor, count: int, little: tf.Tensor) -> tf.Tensor:
        """As `big`, or the lowest byte first."""
        number = tf.zeros_like(position)
        for offset in range(count):
            shift = tf.where(little, offset, count - 1 - offset)
            number += self(position + offset) * 256 ** tf.cast(shift, tf.int64)
        return number


def _read_header(file: tf.Tensor) -> Header:
    data = _Bytes(file)
    start = data.big(0, 3)
    kind = tf.where(start == 0xFFD8FF, JPEG, tf.where(data.big(0, 4) == 0x89504E47, PNG, UNKNOWN))
    return tf.switch_case(
        kind,
        [
            lambda: Header(*[tf.constant(value) for value in (UNKNOWN, 0, 0, 0, 0, 0, 1)]),
            lambda: _read_jpeg(data),
            lambda: _read_png(data),
        ],
    )


def _read_jpeg(data: _Bytes) -> Header:
    """Walks the segments up to the first scan."""

    def step(position, frame, exif, adobe, _):
        marker, length = data(position + 1), data.big(position + 2, 2)
        is_marker = data(position) == 0xFF
        filling = is_marker & (marker == 0xFF)
        is_frame = (marker >= 0xC0) & (marker <= 0xCF)
        is_frame &= (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)
        is_exif = (marker == 0xE1) & (data.big(position + 4, 6) == 0x457869660000)
        is_adobe = (marker == 0xEE) & (data.big(position + 4, 5) == 0x41646F6265)
        scan = is_marker & (marker == 0xDA)
        damaged = ~is_marker | (~filling & (length < 2))
        frame = tf.where(is_marker & is_frame & (frame == 0), position, frame)
        exif = tf.where(is_marker & is_exif & (exif == 0), position + 10, exif)
        adobe |= is_marker & is_adobe
        # Without a scan there is no image, whatever the frame says.
        frame = tf.where(damaged, tf.zeros_like(frame), frame)
        position = tf.where(filling, position + 1, position + 2 + length)
        return position, frame, exif, adobe, ~(scan | damaged)

    def going(position, frame, exif, adobe, more):
        del frame, exif, adobe
        return more & (position < data.length)

    zero = tf.constant(0, tf.int64)
    state = (zero + 2, zero, zero, tf.constant(False), tf.constant(True))
    _, frame, exif, adobe, more = tf.while_loop(going, step, state)
    found = ~more & (frame > 0)
    height, width = data.big(frame + 5, 2), data.big(frame + 7, 2)
    numbers = (height, width, data(frame + 9), data(frame + 4), tf.cast(adobe, tf.int64))
    return _header(JPEG, found, numbers, _orientation(data, exif))


def _read_png(data: _Bytes) -> Header:
    """Walks the chunks up to the last: EXIF may stand anywhere."""

    def step(position, exif, clear, _):
        kind = data.big(position + 4, 4)
        exif = tf.where((kind == 0x65584966) & (exif == 0), position + 8, exif)
        clear |= kind == 0x74524E53
        return position + 12 + data.big(position, 4), exif, clear, kind != 0x49454E44

    def going(position, exif, clear, more):
        del exif, clear
        return more & (position < data.length)

    state = (tf.constant(8, tf.int64), tf.constant(0, tf.int64), tf.constant(False), tf.constant(True))
    _, exif, clear, _ = tf.while_loop(going, step, state)
    found = (data.big(4, 4) == 0x0D0A1A0A) & (data.big(12, 4) == 0x49484452)
    limit = tf.constant(2**31 - 1, tf.int64)
    width, height = tf.minimum(data.big(16, 4), limit), tf.minimum(data.big(20, 4), limit)
    clear |= (data(25) == _GREY_ALPHA) | (data(25) == _RGBA)
    numbers = (height, width, data(25), data(24), tf.cast(clear, tf.int64))
    return _header(PNG, found, numbers, _orientation(data, exif))


def _header(kind: int, found: tf.Tensor, numbers: tuple[tf.Tensor, ...], orientation: tf.Tensor) -> Header:
    numbers = [tf.cast(tf.where(found, number, 0), tf.int32) for number in numbers]
    return Header(tf.constant(kind), *numbers, orientation)


def _orientation(data: _Bytes, exif: tf.Tensor) -> tf.Tensor:
    """Reads the orientation from the TIFF structure at `exif`; 1 where there is none (`exif` is 0)."""
    little = data.big(exif, 2) == 0x4949
    directory = exif + data.ordered(exif + 4, 4, little)
    count = data.ordered(directory, 2, little)
    entries = directory + 2 + 12 * tf.range(tf.minimum(count, 1000))
    is_orientation = data.ordered(entries, 2, little) == 0x0112
    is_long = data.ordered(entries + 2, 2, little) == 4
    values = tf.where(is_long, data.ordered(entries + 8, 4, little), data.ordered(entries + 8, 2, little))
    value = tf.reduce_max(tf.where(is_orientation, values, 1))
    return tf.cast(tf.where((exif > 0) & (value >= 1) & (value <= 8), value, 1), tf.int32)
