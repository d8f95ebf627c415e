"""Image files in all the ways that people's tools write them, each made here, by name."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features

RNG = np.random.default_rng(5)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8)).resize((45, 37), Image.Resampling.BICUBIC)
)
RGB = Image.fromarray(SMOOTH)
ALPHA = Image.fromarray(RNG.integers(0, 256, SMOOTH.shape[:2], np.uint8))


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, color_type, *chunks):
    """A PNG written by hand: samples `[H, W, C]` of up to 16 bits, further chunks before the pixels."""
    height, width, channels = samples.shape
    if depth == 16:
        rows = samples.astype(">u2").tobytes()
    elif depth == 8:
        rows = samples.astype(np.uint8).tobytes()
    else:
        bits = np.unpackbits(samples[..., None].astype(np.uint8), axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=-1).tobytes()
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[i : i + stride] for i in range(0, len(rows), stride))
    assert channels == {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    head = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def without_segment(jpeg, marker):
    """A JPEG less its segments of one marker."""
    at, kept = 2, [jpeg[:2]]
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
        if jpeg[at + 1] != marker:
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, jpeg[at:]])


def with_orientation(kind, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, kind, exif=exif, **options)


def plain():
    """Files that both decoders read alike, and whose bytes a record therefore keeps."""
    zoo = {}
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        for quality in (5, 75, 95, 100):
            for progressive in (False, True):
                name = f"jpeg {subsampling} quality {quality} {'progressive' * progressive}"
                options = {"subsampling": subsampling, "quality": quality, "progressive": progressive}
                zoo[name] = encode(RGB, "JPEG", **options)
    for width, height in ((1, 1), (1, 40), (40, 1), (8, 8), (17, 15)):
        zoo[f"jpeg {width}x{height}"] = encode(RGB.resize((width, height)), "JPEG")
    return zoo | {
        "jpeg grey": encode(RGB.convert("L"), "JPEG"),
        "jpeg stored as RGB": encode(RGB, "JPEG", keep_rgb=True),
        "jpeg optimized": encode(RGB, "JPEG", optimize=True),
        "jpeg restart markers": encode(RGB, "JPEG", restart_marker_blocks=2),
        "jpeg comment": encode(RGB, "JPEG", comment=b"hello"),
        "jpeg tail": encode(RGB, "JPEG") + b"tail",
        "jpeg mpo": encode(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]),
        "png": encode(RGB, "PNG"),
        "png grey": encode(RGB.convert("L"), "PNG"),
        "png black and white": encode(RGB.convert("1"), "PNG"),
        "png palette": encode(RGB.quantize(200), "PNG"),
        "png text": png(SMOOTH, 8, 2, chunk(b"tEXt", b"a\0b")),
        "png resolution": encode(RGB, "PNG", dpi=(300, 300)),
        "png animated": encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),
        "png tail": encode(RGB, "PNG") + b"tail",
    }


def odd():
    """Files that would be other pixels in training than elsewhere, or that only one of them reads."""
    zoo = {}
    rgba = RGB.copy()
    rgba.putalpha(ALPHA)
    cmyk = encode(RGB.convert("CMYK"), "JPEG")
    palette = chunk(b"PLTE", RNG.integers(0, 256, (16, 3), np.uint8).tobytes())
    grey16 = RNG.integers(0, 65536, (*SMOOTH.shape[:2], 1))
    zoo |= {
        "png alpha": encode(rgba, "PNG"),
        "png grey alpha": encode(Image.merge("LA", (RGB.convert("L"), ALPHA)), "PNG"),
        "png palette, alpha by index": encode(RGB.quantize(20), "PNG", transparency=3),
        "png palette, alpha table": encode(RGB.quantize(20), "PNG", transparency=bytes(range(0, 200, 10))),
        "png one colour transparent": encode(RGB, "PNG", transparency=tuple(SMOOTH[0, 0].tolist())),
        "png one grey transparent": encode(RGB.convert("L"), "PNG", transparency=120),
        "png 16-bit grey": png(grey16, 16, 0),
        "png 16-bit grey alpha": png(RNG.integers(0, 65536, (12, 13, 2)), 16, 4),
        "png 16-bit": png(RNG.integers(0, 65536, (12, 13, 3)), 16, 2),
        "png 16-bit alpha": png(RNG.integers(0, 65536, (12, 13, 4)), 16, 6),
        "png 16-bit of Pillow": encode(Image.fromarray(grey16[..., 0].astype(np.uint16)), "PNG"),
        "png without its end": encode(RGB, "PNG")[:-12],
        "png cut behind its pixels": encode(RGB, "PNG")[:-16],
        "jpeg CMYK": cmyk,
        "jpeg CMYK without Adobe's marker": without_segment(cmyk, 0xEE),
        "jpeg YCCK": cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\x02"),
        "bmp": encode(RGB, "BMP"),
        "bmp grey": encode(RGB.convert("L"), "BMP"),
        "gif": encode(RGB, "GIF"),
        "gif animated": encode(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
        "gif transparent": encode(RGB.quantize(20), "GIF", transparency=3),
        "tiff": encode(RGB, "TIFF"),
        "tiff grey": encode(RGB.convert("L"), "TIFF"),
        "tiff CMYK": encode(RGB.convert("CMYK"), "TIFF"),
        "tiff 16-bit": encode(Image.fromarray(grey16[..., 0].astype(np.uint16)), "TIFF"),
        "tiff floats": encode(Image.fromarray(SMOOTH[..., 0] / np.float32(255)), "TIFF"),
        "ppm": encode(RGB, "PPM"),
        "pgm": encode(RGB.convert("L"), "PPM"),
        "pgm 16-bit": b"P5 2 3 65535\n" + bytes(range(12)),
    }
    for depth in (2, 4):
        grey = RNG.integers(0, 2**depth, (12, 13, 1))
        zoo[f"png {depth}-bit grey"] = png(grey, depth, 0)
        zoo[f"png {depth}-bit palette"] = png(grey, depth, 3, palette)
        zoo[f"png {depth}-bit palette, alpha"] = png(grey, depth, 3, palette, chunk(b"tRNS", b"\0\x80"))
    if features.check("webp"):
        zoo |= {
            "webp": encode(RGB, "WEBP"),
            "webp lossless": encode(RGB, "WEBP", lossless=True),
            "webp alpha": encode(rgba, "WEBP", lossless=True),
        }
    if features.check("avif"):
        zoo["avif"] = encode(RGB, "AVIF")
    if features.check("jpg_2000"):
        zoo["jpeg 2000"] = encode(RGB, "JPEG2000")
    return zoo


def oriented():
    """Files that EXIF says to turn, by kind and orientation."""
    kinds = ("JPEG", "PNG", "TIFF") + (("WEBP",) if features.check("webp") else ())
    return {
        f"{kind.lower()} orientation {number}": with_orientation(kind, number)
        for kind in kinds
        for number in range(2, 9)
    }
