"""Image files of every kind that a server may be sent, made on the spot."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def encode(image, kind, **options):
    """The bytes of a file."""
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def picture(height=51, width=77, seed=0):
    """Smooth random RGBA."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 4), np.uint8)
    return Image.fromarray(small, "RGBA").resize((width, height), Image.Resampling.BICUBIC)


def png16(samples, color_type):
    """A PNG of 16-bit samples `[H, W, C]`, which Pillow cannot write in colour."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def claim_size(png, width, height):
    """Lets the header of a PNG claim another size."""
    header = struct.pack(">II", width, height) + png[24:29]
    return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]


def kinds():
    """Files by name; all can be read."""
    rgba = picture()
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    rng = np.random.default_rng(1)
    files = {
        "jpeg": encode(rgb, "JPEG"),
        "jpeg 4:4:4": encode(rgb, "JPEG", subsampling=0, quality=95),
        "progressive jpeg": encode(rgb, "JPEG", progressive=True),
        "grey jpeg": encode(grey, "JPEG"),
        "cmyk jpeg": encode(rgb.convert("CMYK"), "JPEG"),
        "png": encode(rgb, "PNG"),
        "rgba png": encode(rgba, "PNG"),
        "grey png": encode(grey, "PNG"),
        "grey alpha png": encode(rgba.convert("LA"), "PNG"),
        "palette png": encode(rgb.convert("P"), "PNG"),
        "palette png with a clear colour": encode(rgb.convert("P"), "PNG", transparency=7),
        "palette png of 4 bits": encode(rgb.quantize(9), "PNG", bits=4),
        "palette png of 4 bits with a clear colour": encode(rgb.quantize(9), "PNG", bits=4, transparency=3),
        "png with a clear colour": encode(rgb, "PNG", transparency=rgb.getpixel((0, 0))),
        "grey png with a clear level": encode(grey, "PNG", transparency=grey.getpixel((3, 3))),
        "png of 1 bit": encode(rgb.convert("1"), "PNG"),
        "png of 1 bit with a clear level": encode(rgb.convert("1"), "PNG", transparency=1),
        "grey png of 16 bits": encode(Image.fromarray(rng.integers(0, 2**16, (31, 44), np.uint16)), "PNG"),
        "rgb png of 16 bits": png16(rng.integers(0, 2**16, (9, 11, 3)), 2),
        "rgba png of 16 bits": png16(rng.integers(0, 2**16, (9, 11, 4)), 6),
    }
    for orientation in range(10):  # 0 and 9 mean nothing.
        exif = Image.Exif()
        exif[0x010F], exif[ORIENTATION] = "maker", orientation
        files[f"jpeg turned {orientation}"] = encode(rgb, "JPEG", exif=exif)
        files[f"png turned {orientation}"] = encode(rgb, "PNG", exif=exif)
    return files


def broken():
    """Files by name, each with what is said of it."""
    jpeg, png = encode(picture().convert("RGB"), "JPEG"), encode(picture().convert("RGB"), "PNG")
    cmyk = encode(picture().convert("CMYK"), "JPEG")
    marker = cmyk.index(b"\xff\xee")
    return {
        "nothing": (b"", "is empty; allowed are JPEG and PNG files"),
        "text": (b"hello", "is no JPEG and no PNG file"),
        "jpeg cut in its header": (jpeg[:100], "has a damaged or incomplete header"),
        "jpeg cut short": (jpeg[: len(jpeg) // 2], "JPEG of 77x51 pixels: is damaged or cut short"),
        "png cut in its header": (png[:20], "has a damaged or incomplete header"),
        "png cut short": (png[: len(png) // 2], "PNG of 77x51 pixels: is damaged or cut short"),
        "png that unpacks to gigabytes": (
            claim_size(png, 12000, 12000),
            "has 12000x12000 pixels; allowed are 25000000 in all and 8192 along a side",
        ),
        "png of a long side": (claim_size(png, 1, 9000), "has 1x9000 pixels; allowed are"),
        "png of a size beyond PNG": (
            claim_size(png, 2**32 - 1, 2**32 - 1),
            "has 2147483647x2147483647 pixels; allowed are 25000000 in all",
        ),
        "cmyk without its marker": (
            cmyk[:marker] + cmyk[marker + 2 + int.from_bytes(cmyk[marker + 2 : marker + 4]) :],
            "is a CMYK JPEG without the marker of Adobe",
        ),
    }
