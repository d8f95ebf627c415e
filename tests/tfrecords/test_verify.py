"""The verifier finds what was damaged, says where, and goes on."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from in_process import call

from tfrecords.shards import sha256_of
from tfrecords.verification import unfinished, verify_split
from tfrecords.verify import main
from tfseg.data.records import ImageRecord, Split, serialize
from tfseg.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
SHARDS = ("source_train-00000-of-00002.tfrecord", "source_train-00001-of-00002.tfrecord")


@pytest.fixture
def folder(synthetic_records, tmp_path):
    shutil.copytree(synthetic_records, tmp_path / "records")
    return tmp_path / "records"


@pytest.fixture
def split(synthetic_records):
    return Split.load(synthetic_records, "source_train")


def found(folder, name="source_train"):
    return [(entry.file, entry.record, entry.message) for entry in verify_split(folder, name).damage]


def places(folder):
    return [(file, record) for file, record, _ in found(folder)]


def edit(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data) or data)


def test_whole_splits_are_counted(synthetic_records, split):
    report = verify_split(synthetic_records, "source_train")
    assert report.damage == []
    assert report.images == report.masks == len(split)
    assert report.images_per_class == split.summary["pairs_per_class"]
    assert sum(report.sizes.values()) == len(split)
    assert report.to_dict()["whole"]


def test_several_workers_find_the_same(folder):
    edit(folder / SHARDS[0], lambda data: data.__delitem__(-1))
    assert verify_split(folder, "source_train", workers=2) == verify_split(folder, "source_train")


@pytest.mark.parametrize("where", ["length", "length checksum", "image", "mask", "checksum"])
def test_one_flipped_byte_costs_one_record(folder, split, where):
    info = split.infos[2]
    record = split.read(2)
    mask_at = record.index(b"\x89PNG") + 60
    at = {
        "length": 0,
        "length checksum": 9,
        "image": 12 + record.index(b"\xff\xd8") + 500,
        "mask": 12 + mask_at,
        "checksum": 12 + info.length + 1,
    }[where]
    edit(folder / SHARDS[0], lambda data: data.__setitem__(info.offset + at, data[info.offset + at] ^ 4))
    assert places(folder) == [(SHARDS[0], None), (SHARDS[0], 2)]
    assert "SHA-256" in found(folder)[0][2]
    assert f"image {info.image_id}: " in found(folder)[1][2]


def test_all_damage_is_found_not_only_the_first(folder, split):
    first, second = split.infos[1], split.infos[5]
    for info in (first, second):
        edit(folder / SHARDS[0], lambda data, at=info.offset + 40: data.__setitem__(at, data[at] ^ 1))
    last = split.infos[-1]
    edit(folder / SHARDS[1], lambda data: data[: last.offset + 100])
    number = last.shard and sum(info.shard == 1 for info in split.infos) - 1
    assert places(folder) == [
        (SHARDS[0], None),
        (SHARDS[0], 1),
        (SHARDS[0], 5),
        (SHARDS[1], None),
        (SHARDS[1], number),
    ]
    report = verify_split(folder, "source_train")
    assert report.images == len(split) - 3


def test_truncation_costs_the_records_behind_it(folder, split):
    edit(folder / SHARDS[0], lambda data: data[: split.infos[3].offset + 5])
    count = sum(info.shard == 0 for info in split.infos)
    assert places(folder) == [(SHARDS[0], None)] + [(SHARDS[0], i) for i in range(3, count)]


def test_a_tail_is_damage_of_the_file_alone(folder):
    edit(folder / SHARDS[0], lambda data: data + b"tail")
    assert places(folder) == [(SHARDS[0], None)]


def test_swapped_shards(folder, split):
    one, two = (folder / name for name in SHARDS)
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    damaged = places(folder)
    assert {(SHARDS[0], None), (SHARDS[1], None)} <= set(damaged)
    # The first record of each starts in the right place, but is another one.
    assert len(damaged) == len(split) + 2


def test_missing_and_unlisted_shards(folder):
    (folder / SHARDS[0]).unlink()
    (folder / "source_train-00000-of-00009.tfrecord").write_bytes(b"")
    (folder / "other-00000-of-00001.tfrecord").write_bytes(b"")
    messages = found(folder)
    assert messages[0][:2] == ("source_train-00000-of-00009.tfrecord", None)
    assert messages[1][0] == SHARDS[0] and "is missing" in messages[1][2]
    stray = unfinished(folder, ["source_train", "target_train", "target_val"])
    assert [entry.file for entry in stray] == ["other-00000-of-00001.tfrecord"]


@pytest.mark.parametrize("text", ["", "{", '{\n  "split": "source_train"'])
def test_a_damaged_index_is_reported(folder, text):
    (folder / "source_train.json").write_text(text)
    (damage,) = found(folder)
    assert damage[:2] == ("source_train.json", None)


def test_counts_of_the_index_are_held_to_its_records(folder):
    path = folder / "source_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images_kept": 5, "pairs": 6}))
    assert [message for _, _, message in found(folder)] == [
        "says images_kept 5, its records give 22",
        f"says pairs 6, its records give {content['pairs']}",
    ]


def png(values, shape=(8, 8)):
    mask = np.zeros(shape, np.uint8)
    mask[0, : len(values)] = values
    return tf.io.encode_png(mask[..., None]).numpy()


GOOD = ImageRecord(
    image=tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy(),
    format="jpeg",
    filename="a.jpg",
    image_id="a",
    height=8,
    width=8,
    labels=(9,),
    mask=png([9, 255]),
)


def plant(folder, record, serialized=None):
    """Puts one record, well framed and listed, into a split of its own."""
    data = serialize(record) if serialized is None else serialized
    content = json.loads((folder / "source_train.json").read_text())
    shard = folder / "one-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(os.fspath(shard)) as writer:
        writer.write(data)
    info = [0, 0, len(data), "a", list(record.labels), record.mask is not None, record.height, record.width]
    content |= {
        "split": "one",
        "images_kept": 1,
        "pairs": len(record.labels),
        "sha256": {shard.name: sha256_of(shard)},
        "bytes": {shard.name: shard.stat().st_size},
        "records": [info],
    }
    (folder / "one.json").write_text(json.dumps(content))


def test_a_planted_record_is_whole(folder):
    plant(folder, GOOD)
    assert found(folder, "one") == []
    assert verify_split(folder, "one").labels_differ == 0
    plant(folder, dataclasses.replace(GOOD, labels=(9, 10)))
    assert verify_split(folder, "one").labels_differ == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": b"\xff\xd8\xff\xe0"}, "its image: cannot be decoded"),
        ({"image": GOOD.image[:-200]}, "its image: cannot be decoded"),
        ({"image": GOOD.mask}, "its image is a png, the record says"),
        ({"height": 9}, r"its image is 8x8, not 8x9"),
        ({"mask": b"none"}, "its mask: cannot be decoded"),
        ({"mask": GOOD.image}, "its mask: the mask is a JPEG"),
        ({"mask": png([9], (8, 9))}, "its mask: the mask is 9x8"),
        ({"mask": png([9, 3])}, "its mask: the mask has the value 3"),
        ({"labels": (10, 9)}, "must be ascending"),
        ({"labels": (9, 9)}, "must be ascending"),
        ({"labels": (3,)}, "ids of the split's domain"),
        ({"labels": (99,)}, "ids of the split's domain"),
        ({"image_id": "b"}, "the record says b, the index a"),
    ],
)
def test_bad_content_is_found_behind_good_checksums(folder, change, message):
    plant(folder, dataclasses.replace(GOOD, **change))
    report = verify_split(folder, "one")
    assert [(entry.file, entry.record) for entry in report.damage] == [("one-00000-of-00001.tfrecord", 0)]
    with pytest.raises(InputError, match=message):
        raise InputError(report.damage[0].message)


def test_records_that_are_no_examples_are_found(folder):
    empty = tf.train.Example().SerializeToString()
    for data, message in ((b"\xff" * 20, "is no tf.Example"), (empty, "image/encoded is missing")):
        plant(folder, GOOD, data)
        ((_, record, told),) = found(folder, "one")
        assert record == 0 and message in told


def verify(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfrecords.verify", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )


def test_command(folder):
    whole = verify(folder)
    assert whole.returncode == 0, whole.stderr
    assert "split source_train: 22 images read, 22 with a mask" in whole.stdout
    assert json.loads((folder / "verify.json").read_text())["whole"]
    edit(folder / SHARDS[1], lambda data: data.__setitem__(30, data[30] ^ 1))
    damaged = verify(folder, "--workers=1")
    assert damaged.returncode == 1
    assert f"damaged: {SHARDS[1]}, record 0: " in damaged.stdout
    assert not json.loads((folder / "verify.json").read_text())["whole"]


def test_command_with_nothing_to_verify(tmp_path):
    for arguments, message in (
        ([], "the folder to verify is wanted"),
        ([tmp_path], "has no split"),
        ([tmp_path, "more"], "left-over words on the command line: 'more'"),
    ):
        result = verify(*arguments)
        assert result.returncode == 2
        assert message in result.stderr.splitlines()[-1]


def test_a_split_without_masks_says_what_cannot_be_measured(folder):
    plant(folder, dataclasses.replace(GOOD, mask=None))
    index = folder / "one.json"
    index.write_text(json.dumps(json.loads(index.read_text()), indent=2))
    told = call(main, folder, "--workers=1").stdout.split("split ")
    (one,) = [text for text in told if text.startswith("one:")]
    assert "no masks: it can be trained on as target, and evaluated by image labels, not by IoU" in one
    assert sum("no masks" in text for text in told) == 1
