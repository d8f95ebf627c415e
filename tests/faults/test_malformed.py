"""Malformed inputs of every kind a command reads: it works on them as they are, or refuses in one line."""

import copy
import dataclasses
import importlib
import json
import random
import shutil
import signal

import numpy as np
import pytest
from commands import COMMANDS
from fault_counts import COUNTS, SCALE
from in_process import call

from export import client, manifest
from tfrecords import build_coco, label_map, verify
from tfseg import cli, evaluate, predict
from tfseg.commands import COMMANDS as MODULES
from tfseg.data.examples import read_example
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.model_dir import find_model, read_model_dir

STRANGE = [
    None, [], {}, "", "x", 0, -1, 1, 1.0, 0.5, 1e400, float("nan"), 10**30, True, False, [[]], [None],
    {"a": 1},    "\ud800", "a\nb", "9" * 5000,
]  # fmt: skip
LAZY = {"client", "train", "figures", "report", "table1", "figure4"}
"""Commands whose options are not in their own module."""
TEXTS = [
    b"", b"{", b"[]", b"null", b"3", b'"x"', b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"\x00" * 9,
    b"\xef\xbb\xbf", b"{}", b'{"a": NaN}', bytes(range(256)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_hang():
    def hangs(*_):
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def answered(main, *words, statuses=(0, 2)):
    """Calls a command; returns its status, which is 0, or 2 with one line."""
    COUNTS["malformed inputs"] += 1
    done = call(main, *words)
    assert done.returncode in statuses, (done.returncode, done.stderr[-2000:])
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 2:
        assert len(lines) == 1 and lines[0].isprintable() and len(lines[0]) < 9000, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.returncode


def places(content, path=()):
    """The paths to all values within a JSON document."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def changed(content, path, value):
    """A copy with another value at a place; `KeyError` takes the value away."""
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = copy.deepcopy(value)
    return content


def variants(content, count, seed):
    """Texts of a JSON document in which one value is strange or missing; all of them, or `count`."""
    every = [(path, value) for path in places(content) for value in [KeyError, *STRANGE]]
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    yield from (json.dumps(changed(content, path, value)).encode() for path, value in chosen)
    yield from TEXTS


def refused_or_read(read, path):
    """What `read` returns, or None where it refuses and names the file."""
    COUNTS["malformed inputs"] += 1
    try:
        return read()
    except InputError as error:
        assert path.name in str(error), error
        return None


def test_label_maps(tmp_path):
    path = tmp_path / "labels.json"
    labels = [{"id": 1, "name": "cat", "domain": "target", "aliases": ["kitty"]}, {"id": 2, "name": "cup"}]
    labels[1] |= {"domain": "source", "aliases": []}
    for data in variants({"name": "two", "labels": labels}, 10_000, "labels"):
        path.write_bytes(data)
        found = refused_or_read(lambda: LabelMap.load(path), path)
        assert found is None or LabelMap.from_dict(found.to_dict()) == found
    for data in TEXTS:
        path.write_bytes(data)
        words = ["--names=dog", "--domain=target", f"--output={tmp_path}/new.json", f"--label_map={path}"]
        assert answered(label_map.main, *words) == 2
    assert not (tmp_path / "new.json").exists()


def test_model_descriptions(world, tmp_path):
    shutil.copytree(world.model, tmp_path / "model")
    for name in ("model.json", "labels.json"):
        path = tmp_path / "model" / name
        whole = path.read_bytes()
        for data in variants(json.loads(whole), 400 * SCALE, name):
            path.write_bytes(data)
            found = refused_or_read(lambda: read_model_dir(tmp_path / "model"), path)
            assert found is None or found.config.num_labels == found.label_map.num_labels
        path.write_bytes(whole)


def test_indices_of_splits(world, tmp_path):
    for path in world.records.glob("target_val*"):
        shutil.copy(path, tmp_path)
    path, split = tmp_path / "target_val.json", Split.load(world.records, "target_val")
    expected = [read_example(split, i) for i in range(len(split))]
    for data in variants(json.loads(path.read_bytes()), 150 * SCALE, "index"):
        path.write_bytes(data)
        found = refused_or_read(lambda: Split.load(tmp_path, "target_val"), path)
        for index in range(len(found) if found else 0):
            try:
                example = read_example(found, index)
            except InputError as error:
                assert "target_val-0" in str(error)
                continue
            assert example.labels == expected[index].labels or not found.infos[index].has_mask
            np.testing.assert_array_equal(example.image, expected[index].image)


def test_annotations_as_bytes(world, tmp_path):
    path, rng = tmp_path / "instances.json", random.Random(7)
    whole = (world.synthetic / "coco/annotations/instances_train.json").read_bytes()
    words = [
        word for word in COMMANDS["build_coco"].words(world, tmp_path / "out") if "annotations" not in word
    ]
    for _ in range(8 * SCALE):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
        answered(build_coco.main, f"--annotations={path}", *words)
        assert not list((tmp_path / "out").glob(".*"))


def test_shards_and_folders_for_verify(world, tmp_path):
    rng = random.Random(8)
    for number in range(4 * SCALE):
        folder = tmp_path / str(number)
        shutil.copytree(world.records, folder)
        path = rng.choice(sorted(folder.glob("target_*")))
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        # A bit of a name or of an option in the index is nobody's damage; one of a record is.
        status = answered(verify.main, "--workers=1", folder, statuses=(0, 1, 2))
        assert status or path.suffix == ".json"
        shutil.rmtree(folder)


def test_checkpoints(world, tmp_path):
    shutil.copytree(world.model, tmp_path / "model")
    whole = [weight.copy() for weight in read_model_dir(world.model).load("joint").get_weights()]
    rng = random.Random(9)
    for _ in range(8 * SCALE):
        path = rng.choice(sorted((tmp_path / "model/joint").glob("ckpt-*")))
        before = path.read_bytes()
        data = bytearray(before)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data if rng.random() < 0.7 else data[: rng.randrange(len(data))])
        COUNTS["malformed inputs"] += 1
        try:
            found = read_model_dir(tmp_path / "model").load("joint").get_weights()
        except InputError as error:
            assert "joint/ckpt-0" in str(error)
        else:
            for weight, expected in zip(found, whole, strict=True):
                np.testing.assert_array_equal(weight, expected)
        path.write_bytes(before)


def test_progress_of_an_evaluation(world, tmp_path):
    command, out, rng = COMMANDS["evaluate"], tmp_path / "out", random.Random(10)
    words = command.words(world, out)
    assert answered(evaluate.main, *words) == 0
    expected = command.content(out)
    progress = next(out.glob("*.jsonl"))
    whole = progress.read_bytes()
    for _ in range(3 * SCALE):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        progress.write_bytes(data if rng.random() < 0.7 else data[: rng.randrange(len(data))])
        assert answered(evaluate.main, *words) == 0
        assert command.content(out)["metrics.json"] == expected["metrics.json"]


def test_lists_of_the_files_of_an_export(tmp_path):
    (tmp_path / "1/assets.extra").mkdir(parents=True)
    (tmp_path / "1/saved_model.pb").write_bytes(b"graph")
    manifest.write(tmp_path / "1")
    path = tmp_path / "1/assets.extra" / manifest.FILE
    for data in variants(json.loads(path.read_bytes()), 10_000, "files"):
        path.write_bytes(data)
        refused_or_read(lambda: manifest.check(tmp_path / "1"), tmp_path / "1")


def _options_of(module):
    found = importlib.import_module(module)
    classes = [value for value in vars(found).values() if dataclasses.is_dataclass(value)]
    return max(classes, key=lambda value: len(list(cli._declared(value))))  # Others are groups of it.


@pytest.mark.parametrize("name", sorted(MODULES.keys() - LAZY))
def test_flags(name):
    options, rng = _options_of(MODULES[name]), random.Random(name)
    flags = [one.name for one in cli._declared(options)]
    required = [f"--{one.name}=x" for one in cli._declared(options) if one.required]
    values = [
        "",
        "nan",
        "-inf",
        "1e999",
        "-1",
        "9" * 5000,
        "0x1F",
        "\x1b[31m",
        "é",
        "\udce9",
        "true",
        "a,b",
        "=",
    ]
    for _ in range(40 * SCALE):
        word = f"--{rng.choice(flags)}={rng.choice(values)}"
        COUNTS["malformed inputs"] += 1
        try:
            cli.parse(options, [*required, word, *["word"] * rng.randrange(2)])
        except InputError as error:
            assert str(error)


def test_folders_that_hold_no_model(tmp_path):
    for number, make in enumerate(
        (
            lambda path: None,
            lambda path: path.mkdir(),
            lambda path: (path / "model.json").mkdir(parents=True),
            lambda path: (path / "1/saved_model.pb").mkdir(parents=True),
            lambda path: path.write_text("x"),
            lambda path: path.symlink_to(path.name),
        )
    ):
        make(tmp_path / str(number))
        COUNTS["malformed inputs"] += 1
        with pytest.raises(InputError, match=str(tmp_path / str(number))):
            find_model(tmp_path / str(number))


@pytest.mark.parametrize(
    "data", [b"", b"\x0a\x05graph", bytes(range(256)) * 9], ids=["empty", "short", "long"]
)
def test_damaged_exports(world, tmp_path, data):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/saved_model.pb").write_bytes(data)
    image = next(world.classes.rglob("*.jpg"))
    for main, words in (
        (client.main, [f"--model={tmp_path}", "--label=1", f"--output_dir={tmp_path}/out"]),
        (predict.main, [f"--model_dir={tmp_path}", f"--output_dir={tmp_path}/out"]),
        (evaluate.main, [f"--model_dir={tmp_path}", f"--data_dir={world.records}"]),
    ):
        files = [] if main is evaluate.main else [image]
        assert answered(main, *words, *files) == 2
    assert not (tmp_path / "out").exists()
