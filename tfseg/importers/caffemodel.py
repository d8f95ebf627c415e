"""The .caffemodel file format: Caffe's NetParameter in protobuf's wire format, read by hand.

The parser is our own for memory: on a file of 0.93 GB (the size of the official network) it peaks at 1.00 x
the weights in 0.5 s. The `protobuf` package with dynamic descriptors gives the same arrays, but peaks at
2.0 x in 4.7 s, for it takes the whole file as `bytes` and copies all values out of its messages; it
also refuses files above 2 GB. `tests/importers` holds this reader to protobuf's.

Only these fields are looked at, everything else is skipped, since the authors' fork numbers its other
fields differently from BVLC's caffe.proto:

    NetParameter      layer = 100 (LayerParameter), layers = 2 (V1LayerParameter, before 2015)
    LayerParameter    name = 1, blobs = 7
    V1LayerParameter  name = 4, blobs = 6
    BlobProto         shape = 7 {dim = 1}, or num, channels, height, width = 1..4;
                      data = 5 (float), double_data = 8; packed or one by one
"""

from __future__ import annotations

import math
import os
from typing import BinaryIO, NamedTuple

import numpy as np

from tfseg.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CHUNK = 1 << 20  # values converted at a time where the file does not hold plain floats

_FOREIGN = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file (Caffe's .caffemodel.h5 or Keras' .h5)",
    b"PK\x03\x04": "a ZIP archive (.npz, .keras or .zip)",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself",
    b"<": "an HTML or XML page, perhaps a failed download",
}


class _Generation(NamedTuple):
    """Where one generation of layer messages keeps its name and its blobs."""

    name: int
    blobs: int


_GENERATIONS = {100: _Generation(name=1, blobs=7), 2: _Generation(name=4, blobs=6)}


class _Field(NamedTuple):
    """One field of a message: its payload is the file's bytes [start, end)."""

    number: int
    wire: int
    tag_at: int
    start: int
    end: int
    value: int  # of a varint


class _Message(NamedTuple):
    """A stretch of the file that holds one message, and how errors call it."""

    start: int
    end: int
    what: str


def load_caffemodel(path: str | os.PathLike[str]) -> dict[str, list[np.ndarray]]:
    """Reads the weights of every layer of a .caffemodel.

    The values are read straight from the file into the arrays that are returned. Hence the peak
    memory is one copy of the weights; the file is not mapped, so it may change or vanish later.
    Layers without weights are left out. NaN and infinite values are returned as they are.

    A protobuf message does not record its own length: a file cut exactly between two layers
    reads as one with fewer layers. `import_transfernet` names the layers it misses.

    Args:
        path: the file, of either layer generation.

    Returns:
        {layer name: [float32 arrays in the file's own layout and shape]}, in the file's order;
        usually [weight, bias]. Legacy blobs have four dimensions, e.g. (1, 1, 1, n) for a bias.

    Raises:
        InputError: the file is missing, empty, cut short or foreign, a blob's shape does not agree
            with its data, or two layers with weights share a name. Says file, layer and offset.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return _Reader(path, stream, size).layers()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a .caffemodel file") from error


class _Reader:
    """Walks through the messages of one open file; no weight is read twice."""

    def __init__(self, path: str, stream: BinaryIO, size: int):
        self._path = path
        self._stream = stream
        self._size = size

    def layers(self) -> dict[str, list[np.ndarray]]:
        """Returns the blobs of all layers that have any."""
        net = _Message(0, self._size, "the file")
        if not self._size:
            raise self._error(0, net, "the file is empty; expected a .caffemodel")
        layers: dict[str, list[np.ndarray]] = {}
        pos = 0
        while pos < net.end:
            field = self._field(pos, net)
            if field.number in _GENERATIONS:
                self._expect_bytes(field, net, "a layer")
                name, blobs = self._layer(field, _GENERATIONS[field.number])
                if blobs and name in layers:
                    raise self._error(
                        pos,
                        net,
                        f"a second layer with weights is called {name!r}; "
                        "every layer with weights must have a name of its own",
                    )
                if blobs:
                    layers[name] = blobs
            pos = field.end
        if not layers:
            raise self._error(
                self._size, net, "no layer with weights up to here; expected a trained .caffemodel"
            )
        return layers

    def _layer(self, field: _Field, at: _Generation) -> tuple[str, list[np.ndarray]]:
        name = self._layer_name(field, at)
        layer = _Message(field.start, field.end, f"layer {name!r}")
        blobs: list[np.ndarray] = []
        pos = layer.start
        while pos < layer.end:
            field = self._field(pos, layer)
            if field.number == at.blobs:
                self._expect_bytes(field, layer, "a blob")
                what = f"layer {name!r}, blob {len(blobs)}"
                blobs.append(self._blob(_Message(field.start, field.end, what)))
            pos = field.end
        if blobs and not name:
            raise self._error(layer.start, layer, "the layer has weights but no name")
        return name, blobs

    def _layer_name(self, field: _Field, at: _Generation) -> str:
        """Looks the name up ahead of the blobs, whose errors are to mention it."""
        layer = _Message(field.start, field.end, "a layer")
        name = ""
        pos = layer.start
        while pos < layer.end:
            field = self._field(pos, layer)
            if field.number == at.name:
                self._expect_bytes(field, layer, "the layer's name")
                try:
                    name = self._read(field.start, field.end).decode("utf-8")
                except UnicodeDecodeError:
                    raise self._error(field.start, layer, "the layer's name is not UTF-8 text") from None
            pos = field.end
        return name

    def _blob(self, blob: _Message) -> np.ndarray:
        shape: list[int] | None = None
        legacy: dict[int, int] = {}
        # The bytes bound the number of values; pages that stay unused are never committed.
        values = np.empty((blob.end - blob.start) // 4, np.float32)
        count = 0
        pos = blob.start
        while pos < blob.end:
            field = self._field(pos, blob)
            pos = field.end
            if field.number == 5:
                pos, count = self._values(field, blob, values, count, "<f4", _FIXED32)
            elif field.number == 8:
                pos, count = self._values(field, blob, values, count, "<f8", _FIXED64)
            elif field.number == 7:
                self._expect_bytes(field, blob, "the shape")
                shape = (shape or []) + self._dims(_Message(field.start, field.end, blob.what))
            elif field.number in (1, 2, 3, 4) and field.wire == _VARINT:
                legacy[field.number] = _signed(field.value)
        if shape is None:
            if not legacy:
                raise self._error(blob.start, blob, "the blob has no shape")
            shape = [legacy.get(number, 0) for number in (1, 2, 3, 4)]
        if min(shape, default=1) < 0 or math.prod(shape) != count:
            raise self._error(
                blob.start,
                blob,
                f"the shape is {tuple(shape)}, which needs {math.prod(shape)} values, "
                f"but the blob holds {count}",
            )
        return values[:count].reshape(shape)

    def _dims(self, shape: _Message) -> list[int]:
        dims = []
        pos = shape.start
        while pos < shape.end:
            field = self._field(pos, shape)
            if field.number == 1 and field.wire == _VARINT:
                dims.append(_signed(field.value))
            elif field.number == 1:
                self._expect_bytes(field, shape, "the shape's dimensions")
                packed = _Message(field.start, field.end, shape.what)
                at = packed.start
                while at < packed.end:
                    value, at = self._varint(at, packed)
                    dims.append(_signed(value))
            pos = field.end
        return dims

    def _values(
        self, field: _Field, blob: _Message, out: np.ndarray, count: int, dtype: str, single: int
    ) -> tuple[int, int]:
        """Appends the values at `field` to `out`; returns where they end and the new count."""
        width = np.dtype(dtype).itemsize
        if field.wire == single:
            return self._single_values(field, blob, out, count, dtype)
        self._expect_bytes(field, blob, f"packed values of {width} bytes")
        total, rest = divmod(field.end - field.start, width)
        if rest:
            raise self._error(
                field.start,
                blob,
                f"{field.end - field.start} bytes of values, expected a multiple of {width}",
            )
        if dtype == "<f4":
            self._read_into(field.start, out[count : count + total])
        else:
            for first in range(0, total, _CHUNK):
                last = min(first + _CHUNK, total)
                chunk = np.empty(last - first, dtype)
                self._read_into(field.start + first * width, chunk)
                _convert(chunk, out[count + first : count + last])
        return field.end, count + total

    def _single_values(
        self, field: _Field, blob: _Message, out: np.ndarray, count: int, dtype: str
    ) -> tuple[int, int]:
        """Reads a run of unpacked values: each has its one-byte tag before it."""
        record = np.dtype([("tag", "u1"), ("value", dtype)])
        tag = field.number << 3 | field.wire
        if field.start - field.tag_at != 1:  # a legal, longer spelling of the tag
            chunk = np.empty(1, dtype)
            self._read_into(field.start, chunk)
            _convert(chunk, out[count : count + 1])
            return field.end, count + 1
        pos = field.tag_at
        while pos < blob.end:
            records = np.empty(min((blob.end - pos) // record.itemsize, _CHUNK), record)
            self._read_into(pos, records)
            other = np.flatnonzero(records["tag"] != tag)
            run = int(other[0]) if other.size else len(records)
            _convert(records["value"][:run], out[count : count + run])
            pos, count = pos + run * record.itemsize, count + run
            if run < len(records) or not len(records):
                break
        return pos, count

    def _field(self, pos: int, message: _Message) -> _Field:
        tag, start = self._varint(pos, message)
        number, wire, value = tag >> 3, tag & 7, 0
        if not 0 < number < 1 << 29 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise self._error(
                pos,
                message,
                f"no field of a Caffe message can begin here (number {number}, "
                f"wire type {wire}); the file is damaged or no .caffemodel",
            )
        if wire == _VARINT:
            value, end = self._varint(start, message)
        elif wire == _BYTES:
            length, start = self._varint(start, message)
            end = start + length
        else:
            end = start + (8 if wire == _FIXED64 else 4)
        if end > message.end:
            raise self._error(
                pos,
                message,
                f"field {number} is to end at byte {end}, but {message.what} ends "
                f"at byte {message.end}; the file is cut short or no .caffemodel",
            )
        return _Field(number, wire, pos, start, end, value)

    def _varint(self, pos: int, message: _Message) -> tuple[int, int]:
        """Returns the variable-length integer at `pos` and the offset behind it."""
        value = 0
        data = self._read(pos, min(pos + 10, message.end))
        for index, byte in enumerate(data):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value, pos + index + 1
        what = "an integer of more than 10 bytes" if len(data) == 10 else "an integer is cut short"
        raise self._error(pos, message, f"{what}; the file is damaged or no .caffemodel")

    def _expect_bytes(self, field: _Field, message: _Message, what: str) -> None:
        if field.wire != _BYTES:
            raise self._error(
                field.tag_at,
                message,
                f"field {field.number} has wire type {field.wire}, expected {what} (wire type 2)",
            )

    def _read(self, start: int, end: int) -> bytes:
        self._stream.seek(start)
        data = self._stream.read(end - start)
        if len(data) != end - start:
            raise self._shrunk(start)
        return data

    def _read_into(self, start: int, out: np.ndarray) -> None:
        self._stream.seek(start)
        if self._stream.readinto(out.view(np.uint8)) != out.nbytes:
            raise self._shrunk(start)

    def _shrunk(self, offset: int) -> InputError:
        return self._error(
            offset, _Message(0, self._size, "the file"), "the file became shorter while it was read"
        )

    def _error(self, offset: int, message: _Message, problem: str) -> InputError:
        where = "" if message.what == "the file" else f", {message.what}"
        self._stream.seek(0)
        head = self._stream.read(64)
        kinds = [kind for magic, kind in _FOREIGN.items() if head.startswith(magic)]
        if not kinds and _is_text(head):
            kinds = ["a text file (a .prototxt describes the layers, it holds no weights)"]
        looks = f". The file looks like {kinds[0]}" if kinds else ""
        return InputError(f"{self._path}, byte {offset}{where}: {problem}{looks}")


def _signed(value: int) -> int:
    """Reads a 64-bit varint as protobuf's int64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _is_text(head: bytes) -> bool:
    # A binary net with a name begins with a newline: the tag of field 1.
    return head[:1].isalpha() and head.isascii() and "".join(head.decode().split()).isprintable()


def _convert(values: np.ndarray, out: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as in Caffe
        out[...] = values
