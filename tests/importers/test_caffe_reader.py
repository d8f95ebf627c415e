"""The .caffemodel reader against files of an independent writer and of protobuf itself."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from caffe_descriptors import net_parameter
from caffe_writer import blob_parts, message, tag, varint, write_caffemodel

from tfseg.errors import InputError
from tfseg.importers.caffe import load_caffemodel

FORMS = [
    {"v1": v1, "packed": packed, "legacy": legacy, "double": double}
    for v1, packed, legacy, double in itertools.product([False, True], repeat=4)
]
LAYERS = {
    "conv1_1": [
        np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3) / 7,
        np.array([1.5, -2.5], np.float32),
    ],
    "att-w": [np.array([[0.0, -0.0, 1e-38], [3e38, -1e-45, 5.0]], np.float32)],
}


def _form_id(form: dict) -> str:
    return "-".join(name for name, on in form.items() if on) or "new-unpacked"


def _legacy(array: np.ndarray) -> np.ndarray:
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


def _assert_same(got: dict, want: dict) -> None:
    assert list(got) == list(want)
    for name, arrays in want.items():
        assert len(got[name]) == len(arrays)
        for a, b in zip(got[name], arrays, strict=True):
            assert a.dtype == np.float32 and a.shape == b.shape
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("form", FORMS, ids=_form_id)
def test_reads_every_form(tmp_path: Path, form: dict):
    write_caffemodel(tmp_path / "a.caffemodel", LAYERS, **form)
    want = LAYERS
    if form["legacy"]:
        want = {name: [_legacy(a) for a in arrays] for name, arrays in LAYERS.items()}
    _assert_same(load_caffemodel(tmp_path / "a.caffemodel"), want)


@pytest.mark.parametrize("form", FORMS, ids=_form_id)
def test_protobuf_reads_the_same(tmp_path: Path, form: dict):
    """Protobuf writes, we read; and the tests' writer is held to protobuf's reader."""
    net = net_parameter(packed=form["packed"])(name="a net", input=["data"], force_backward=True)
    for name, arrays in LAYERS.items():
        layer = (net.layers if form["v1"] else net.layer).add(name=name, bottom=["x", "y"])
        layer.type = 4 if form["v1"] else "Convolution"
        for array in arrays:
            blob = layer.blobs.add(diff=np.ones(array.size))
            (blob.double_data if form["double"] else blob.data).extend(array.ravel().tolist())
            if form["legacy"]:
                blob.num, blob.channels, blob.height, blob.width = _legacy(array).shape
            else:
                blob.shape.dim.extend(array.shape)
        (net.layers if form["v1"] else net.layer).add(name="relu")
    path = tmp_path / "a.caffemodel"
    path.write_bytes(net.SerializeToString())
    got = load_caffemodel(path)
    want = {n: [_legacy(a) if form["legacy"] else a for a in x] for n, x in LAYERS.items()}
    _assert_same(got, want)

    write_caffemodel(path, LAYERS, **form)
    parsed = net_parameter(packed=form["packed"]).FromString(path.read_bytes())
    for layer, arrays in zip(parsed.layers if form["v1"] else parsed.layer, LAYERS.values(), strict=True):
        for blob, array in zip(layer.blobs, arrays, strict=True):
            data = blob.double_data if form["double"] else blob.data
            np.testing.assert_array_equal(np.array(data, np.float32), array.ravel())


def test_data_in_several_pieces(tmp_path: Path):
    """Protobuf allows a repeated field to be split, and packed and single values to be mixed."""
    values = np.arange(7, dtype="<f4")
    pieces = (
        message(5, values[:2].tobytes())
        + message(99, b"unknown")
        + b"".join(tag(5, 5) + v.tobytes() for v in values[2:4])
        + message(6, np.ones(7, "<f4").tobytes())  # diff
        + b"\xad\x00"
        + values[4].tobytes()  # the tag in two bytes where one would do
        + message(5, values[5:].tobytes())
    )
    blob = message(7, message(1, varint(7))) + pieces
    path = tmp_path / "a.caffemodel"
    path.write_bytes(message(100, message(7, blob) + message(1, b"late name")))
    _assert_same(load_caffemodel(path), {"late name": [values]})


def test_scalar_and_empty_blobs(tmp_path: Path):
    layers = {"a": [np.float32(3.0).reshape(()), np.zeros((0, 4), np.float32)]}
    write_caffemodel(tmp_path / "a.caffemodel", layers)
    _assert_same(load_caffemodel(tmp_path / "a.caffemodel"), layers)


def test_nonfinite_values_are_kept(tmp_path: Path):
    layers = {"a": [np.array([np.nan, np.inf, -np.inf], np.float32)]}
    write_caffemodel(tmp_path / "a.caffemodel", layers)
    _assert_same(load_caffemodel(tmp_path / "a.caffemodel"), layers)


def test_arrays_outlive_the_file(tmp_path: Path):
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, LAYERS)
    got = load_caffemodel(path)
    path.write_bytes(b"")
    _assert_same(got, LAYERS)
    assert all(a.flags.aligned and a.flags.writeable for x in got.values() for a in x)


def test_layers_without_weights_may_share_a_name(tmp_path: Path):
    pairs = [("soft-att", []), *LAYERS.items(), ("soft-att", []), ("conv1_1", [])]
    write_caffemodel(tmp_path / "a.caffemodel", pairs)
    _assert_same(load_caffemodel(tmp_path / "a.caffemodel"), LAYERS)


def test_refuses_two_layers_with_weights_of_one_name(tmp_path: Path):
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, [*LAYERS.items(), ("att-w", LAYERS["att-w"])])
    with pytest.raises(InputError, match=r"a\.caffemodel, byte \d+: a second layer.*'att-w'"):
        load_caffemodel(path)


@pytest.mark.parametrize("form", FORMS, ids=_form_id)
def test_every_truncation_is_an_error_or_a_shorter_net(tmp_path: Path, form: dict):
    """A protobuf message has no length of its own: a cut between layers cannot be seen here."""
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, LAYERS, **form)
    whole = path.read_bytes()
    full = load_caffemodel(path)
    cuts_between_layers = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            got = load_caffemodel(path)
        except InputError as error:
            assert re.search(r"a\.caffemodel, byte \d+", str(error))
        else:
            cuts_between_layers += 1
            _assert_same(got, {"conv1_1": full["conv1_1"]})
    assert cuts_between_layers == 1


def test_random_damage_never_escapes_as_another_error(tmp_path: Path):
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, LAYERS)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = whole.copy()
        at = rng.integers(0, len(whole), rng.integers(1, 4))
        damaged[at] = rng.integers(0, 256, len(at))
        path.write_bytes(damaged.tobytes())
        try:
            load_caffemodel(path)
        except InputError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100), "PNG"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"PK\x03\x04" + bytes(100), "ZIP"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "JPEG"),
        (b"\x1f\x8b\x08\0" + bytes(100), "gzip"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS"),
        (b'name: "VGG"\nlayer {\n  name: "conv1_1"\n}\n', "prototxt"),
        (b'layers {\n  name: "conv1_1"\n}\n', "prototxt"),
        (bytes(100), "no field of a Caffe message"),
        (b"\xff" * 100, "10 bytes"),
        (message(1, b"only a name"), "no layer with weights"),
        (message(100, message(1, b"relu")), "no layer with weights"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_foreign_files(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "b.caffemodel"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        load_caffemodel(path)
    assert str(path) in str(error.value) and "byte" in str(error.value)


def test_missing_file_and_directory(tmp_path: Path):
    with pytest.raises(InputError, match=r"nothing\.caffemodel: cannot be read"):
        load_caffemodel(tmp_path / "nothing.caffemodel")
    with pytest.raises(InputError, match="cannot be read"):
        load_caffemodel(tmp_path)


def _layer(blob: bytes, name: bytes = b"fc") -> bytes:
    return message(100, message(1, name) + message(7, blob))


def _shape(*dims: int) -> bytes:
    return message(7, message(1, b"".join(map(varint, dims))))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_layer(_shape(2, 3) + message(5, bytes(20))), r"'fc', blob 0.*\(2, 3\).*6 values.* 5"),
        (_layer(_shape(2, 3)), r"6 values.* holds 0"),
        (_layer(message(5, bytes(20))), "no shape"),
        (_layer(_shape(-1, -5) + message(5, bytes(20))), r"\(-1, -5\)"),
        (_layer(_shape(5) + message(5, bytes(21))), "21 bytes.*multiple of 4"),
        (_layer(_shape(5) + message(8, bytes(20))), "20 bytes.*multiple of 8"),
        (_layer(_shape(10) + message(5, bytes(20)) + message(8, bytes(48))), "holds 11"),
        (_layer(_shape(1 << 62, 8)), "needs 36893488147419103232 values"),
        (_layer(_shape(5) + tag(5, 0) + varint(7)), "wire type 0, expected packed values"),
        (tag(100, 0) + varint(7), "field 100 has wire type 0, expected a layer"),
        (message(100, tag(7, 5) + bytes(4)), "field 7 has wire type 5, expected a blob"),
        (message(100, tag(1, 0) + varint(4)), "expected the layer's name"),
        (_layer(_shape(1) + message(5, bytes(4)), b"\xff\xfe"), "not UTF-8"),
        (_layer(_shape(1) + message(5, bytes(4)), b""), "no name"),
        (tag(100, 2) + varint(1 << 60) + bytes(9), "ends at byte"),
        (tag(100, 3) + bytes(9), "wire type 3"),
    ],
)
def test_malformed_messages(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "b.caffemodel"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        load_caffemodel(path)
    assert f"{path}, byte" in str(error.value)


def test_long_runs_of_unpacked_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tfseg.importers.caffemodel._CHUNK", 4)
    values = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    for form in ({"packed": False}, {"double": True}, {"packed": False, "double": True}):
        write_caffemodel(tmp_path / "a.caffemodel", {"a": [values, values]}, **form)
        _assert_same(load_caffemodel(tmp_path / "a.caffemodel"), {"a": [values, values]})


def _official_layers():
    """Yields the layers of the official 320x320 network one by one (SPEC 3), 0.94 GB in all."""
    rng = np.random.default_rng(0)

    def dense(*shape: int, bias: int) -> list[np.ndarray]:
        return [rng.random(shape, np.float32), rng.random(bias, np.float32)]

    channels = 3
    for block, (convs, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for conv in range(1, convs + 1):
            yield f"conv{block}_{conv}", dense(width, channels, 3, 3, bias=width)
            channels = width
    yield "feat_embed", dense(1024, 512 * 20 * 20, bias=1024)
    yield "cls_embed", dense(1024, 80, bias=1024)
    yield "combined_embed", dense(1024, 1024, bias=1024)
    yield "att-w", dense(400, 1024, bias=400)
    yield "ip1", dense(512, 512, bias=512)
    yield "cls-score-voc-att", dense(80, 512, bias=80)
    channels = 1
    for name, width in [
        ("5_1", 512), ("4_1", 512), ("4_2", 512), ("4_3", 256), ("3_1", 256), ("3_2", 256),
        ("3_3", 128), ("2_1", 128), ("2_2", 64), ("1_1", 64), ("1_2", 64),
    ]:  # fmt: skip
        yield f"deconv{name}", dense(channels, width, 3, 3, bias=width)
        channels = width
    yield "seg-score", dense(2, 64, 1, 1, bias=2)


_READ_AND_REPORT = """
import resource, sys
from tfseg.config import preset
from tfseg.importers.caffe import infer_config, load_caffemodel

def status(name):
    line = next(x for x in open("/proc/self/status") if x.startswith(name))
    return int(line.split()[1]) * 1024

before = status("VmHWM")
layers = load_caffemodel(sys.argv[1])
assert infer_config(layers) == preset("official")
print(status("VmHWM") - before, sum(a.size for x in layers.values() for a in x))
print(*(repr(float(layers[n][0].ravel()[-1])) for n in ("conv1_1", "feat_embed", "seg-score")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_official_size_is_held_once(tmp_path: Path):
    """0.94 GB of random weights: the peak grows by the weights and a few MB, no second copy."""
    path = tmp_path / "official.caffemodel"
    last = {}

    def remember():
        for name, arrays in _official_layers():
            last[name] = float(arrays[0].ravel()[-1])
            yield name, arrays

    write_caffemodel(path, remember())
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READ_AND_REPORT, str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        path.unlink()
    grown, count, *values = done.stdout.split()
    assert int(count) == 233_952_354  # SPEC 3
    assert int(grown) < 1.03 * 4 * 233_952_354
    assert [float(v) for v in values] == [last[n] for n in ("conv1_1", "feat_embed", "seg-score")]


def test_blob_parts_of_the_writer_are_canonical():
    """One blob spelled out by hand, so that writer and reader cannot share a mistake."""
    parts = blob_parts(np.array([[1.0, -2.0]], np.float32))
    spelled = bytes.fromhex("3a 04 0a 02 01 02 2a 08 00 00 80 3f 00 00 00 c0")
    assert b"".join(bytes(p) for p in parts) == spelled
