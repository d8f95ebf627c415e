"""Reading an image of any kind as a person sees it: uint8 RGB, upright, on white."""

import io
import os
import stat
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tfseg.errors import InputError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: 420 kB of PNG can unpack to gigabytes."""
MAX_SIDE = 100_000
"""Longest side, pixels: resizing to the network's square passes through S x (longest side) pixels."""
MAX_BYTES = 1 << 30
"""Larger files are refused unread: as 16-bit RGBA `MAX_PIXELS` take half of it."""

# Pictures (MPO comes as JPEG); other formats (EPS, PDF) would start foreign programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff",
    ".webp", ".ppm", ".pgm", ".avif", ".mpo", ".jp2",
)  # fmt: skip
"""File name endings under which `tfseg.predict` looks for images in a folder."""

ImageLike = np.ndarray | Image.Image | str | os.PathLike[str] | bytes


def read_image(
    image: ImageLike,
    *,
    max_pixels: int = MAX_PIXELS,
    upright: bool = True,
    name: str | None = None,
) -> np.ndarray:
    """Reads an image as a person expects it to look.

    Grey becomes RGB; what is transparent shows white, as a viewer or browser shows it; EXIF
    rotation is applied; 16-bit values are scaled to 8 bits; of several frames the first is taken.

    Args:
        image: Path, the bytes of an image file, a Pillow image, or an array `[H, W]` or
            `[H, W, 1 to 4]` (grey, grey and alpha, RGB, RGBA) of bool, uint8, uint16 (full range
            65535), other integers in 0 to 255, or floats: in 0 to 1 where no value is above 1, else
            in 0 to 255.
        max_pixels: Files that claim more pixels are refused unread. No side may be above `MAX_SIDE`.
        upright: Whether EXIF rotation is applied. Not for datasets: their masks lie on the pixels
            as they are stored.
        name: What error messages call the image; a path by default calls itself.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        InputError: If it is no image, is damaged, empty or too large; the message names the file.
    """
    if isinstance(image, np.ndarray):
        return _read_array(image, name or "image array")
    if isinstance(image, Image.Image):
        return _convert(image, upright, max_pixels, name or "image")
    if isinstance(image, (str, os.PathLike)):
        name = name or str(image)
        return _decode(read_file(image, name), upright, max_pixels, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode(bytes(image), upright, max_pixels, name or "image bytes")
    kind = type(image).__name__
    raise InputError(f"{name or 'image'}: a {kind}; allowed are a path, bytes or an array")


def read_file(path: str | os.PathLike[str], name: str, what: str = "") -> bytes:
    """The content of an image's or a mask's file.

    Args:
        path: The file. Pipes and devices, of which some never end, are refused.
        name: What messages call it.
        what: In messages, what cannot be read, such as `the image `.

    Raises:
        InputError: If it cannot be read, is no file or larger than `MAX_BYTES`.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name}: is a pipe or a device; a file is needed")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{name}: has {status.st_size:,} bytes; allowed are {MAX_BYTES:,}")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {what}cannot be read ({error.strerror or error})") from error


def require_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses images that are empty or take too much memory, before their pixels are decoded.

    Args:
        width: Of the image, pixels.
        height: Of the image, pixels.
        name: What the message calls the image.
        max_pixels: Largest `width * height`.

    Raises:
        InputError: If a side is 0 or above `MAX_SIDE`, or there are more than `max_pixels`.
    """
    if not width or not height:
        raise InputError(f"{name}: has {width}x{height} pixels")
    if width * height > max_pixels:
        raise InputError(f"{name}: has {width}x{height} pixels; allowed are {max_pixels:,} in all")
    if max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: has {width}x{height} pixels; allowed are {MAX_SIDE:,} on a side")


def open_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image file of one of `FORMATS`; its size is checked, its pixels are not yet decoded.

    Args:
        data: The file's content.
        name: What error messages call the image.
        max_pixels: As for `read_image`.

    Raises:
        InputError: If it is empty, no image, too large, or its header is damaged.
    """
    if not data:
        raise InputError(f"{name}: is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        if reason := _header_damage(data):
            raise InputError(f"{name}: cannot be decoded ({reason})") from error
        raise InputError(
            f"{name}: cannot be decoded: it is not an image of a known format (JPEG, PNG, ...)"
        ) from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files.
        raise InputError(f"{name}: cannot be decoded ({str(error) or type(error).__name__})") from error
    require_size(*image.size, name, max_pixels)
    return image


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where there is none or the EXIF data are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _header_damage(data: bytes) -> str:
    # Pillow says only "cannot identify" where the format is clear and its header damaged.
    for image_format in FORMATS:
        factory, accept = Image.OPEN[image_format]
        if accept and accept(data[:16]) is True:
            try:
                factory(io.BytesIO(data), "")
            except Exception as error:
                return f"{image_format}: {str(error) or type(error).__name__}"
    return ""


def _decode(data: bytes, upright: bool, max_pixels: int, name: str) -> np.ndarray:
    with open_image(data, name, max_pixels) as opened:
        try:
            return _convert(opened, upright, max_pixels, name)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{name}: cannot be decoded ({str(error) or type(error).__name__})") from error


def _convert(image: Image.Image, upright: bool, max_pixels: int, name: str) -> np.ndarray:
    require_size(*image.size, name, max_pixels)
    image_format = image.format
    if upright and exif_orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        array = np.asarray(image)
        # Mode I is 32 bits. Pillow reads 16-bit PPM as I, too; elsewhere values up to 255 are bytes.
        sixteen_bits = image.mode.startswith("I;16") or image_format == "PPM"
        low, high = array.min(), array.max()
        wide = image.mode != "F" and 0 <= low <= high <= 65535 and (sixteen_bits or high > 255)
        return _read_array(array.astype(np.uint16) if wide else array, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _read_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not 1 <= array.shape[-1] <= 4 or not array.size:
        shape = list(array.shape)
        raise InputError(f"{name}: shape {shape}; allowed are [H, W] and [H, W, 1 to 4], not empty")
    require_size(array.shape[1], array.shape[0], name, max_pixels=array.size)
    pixels = _to_uint8(array, name)
    channels = pixels.shape[-1]
    if channels in (2, 4):
        alpha = pixels[..., -1:].astype(np.float32) / 255
        colors = pixels[..., :-1] * alpha + 255 * (1 - alpha)
        pixels = np.rint(colors).astype(np.uint8)
    # A copy: what the caller does to the array later is no concern of the result.
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.rint(array / np.float32(257)).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: values of type {array.dtype}; allowed are numbers")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also true for NaN
        raise InputError(f"{name}: {array.dtype} values from {low} to {high}; allowed are 0 to 255")
    scale = 255.0 if array.dtype.kind == "f" and high <= 1 else 1.0
    return np.rint(array.astype(np.float64) * scale).astype(np.uint8)
