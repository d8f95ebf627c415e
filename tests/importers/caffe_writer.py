"""Writes .caffemodel files byte by byte, for tests: independent of the reader and of protobuf."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

Layers = Mapping[str, Sequence[np.ndarray]]


def varint(value: int) -> bytes:
    """Encodes an integer; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """Encodes the key before a field."""
    return varint(number << 3 | wire)


def message(number: int, payload: bytes) -> bytes:
    """Encodes a field of bytes."""
    return tag(number, 2) + varint(len(payload)) + payload


def blob_parts(
    array: np.ndarray, *, packed: bool = True, legacy: bool = False, double: bool = False
) -> list[bytes | np.ndarray]:
    """Encodes a BlobProto as a list of pieces, large data uncopied."""
    if legacy:
        shape = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(tag(i, 0) + varint(dim) for i, dim in enumerate(shape, 1))
    elif packed:
        head = message(7, message(1, b"".join(map(varint, array.shape))))
    else:
        head = message(7, b"".join(tag(1, 0) + varint(dim) for dim in array.shape))
    data = np.ascontiguousarray(array, "<f8" if double else "<f4")
    number, wire = (8, 1) if double else (5, 5)
    if packed:
        return [head, tag(number, 2) + varint(data.nbytes), data]
    one = "<d" if double else "<f"
    values = b"".join(tag(number, wire) + struct.pack(one, value) for value in data.ravel())
    return [head, values]


def _size(parts: Iterable[bytes | np.ndarray]) -> int:
    return sum(part.nbytes if isinstance(part, np.ndarray) else len(part) for part in parts)


def write_caffemodel(
    path: Path,
    layers: Layers | Iterable[tuple[str, Sequence[np.ndarray]]],
    *,
    v1: bool = False,
    **blob,
) -> None:
    """Writes layers as a NetParameter, one layer at a time.

    Args:
        path: File to write.
        layers: {name: arrays}, or pairs of them so that names may repeat.
        v1: Whether to use the older generation of layer messages.
        **blob: See `blob_parts`.
    """
    pairs = layers.items() if isinstance(layers, Mapping) else layers
    number, name_field, type_field, blobs_field = (2, 4, None, 6) if v1 else (100, 1, 2, 7)
    with open(path, "wb") as out:
        out.write(message(1, b"net"))
        for name, arrays in pairs:
            # The type is an enum in V1; 4 is CONVOLUTION.
            kind = message(type_field, b"Any") if type_field else tag(5, 0) + varint(4)
            parts: list[bytes | np.ndarray] = [message(name_field, name.encode()) + kind]
            for array in arrays:
                body = blob_parts(array, **blob)
                parts += [tag(blobs_field, 2) + varint(_size(body)), *body]
            out.write(tag(number, 2) + varint(_size(parts)))
            for part in parts:
                out.write(part)
