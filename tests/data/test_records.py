"""Records and splits: the same content by every way of reading it."""

import concurrent.futures
import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfseg.data.batches import training_batches
from tfseg.data.examples import read_example
from tfseg.data.records import (
    FRAME_BYTES,
    ImageRecord,
    RecordInfo,
    Split,
    finished_splits,
    parse,
    serialize,
)
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform
from tfseg.errors import InputError

RECORD = ImageRecord(b"jpeg bytes", "jpeg", "a b.jpg", "17", 3, 4, (2, 5), b"png bytes")


@pytest.fixture
def split_copy(synthetic_records, tmp_path):
    for path in synthetic_records.glob("source_train*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_serialized_record_is_a_tf_example_of_the_documented_features():
    features = tf.train.Example.FromString(serialize(RECORD)).features.feature
    assert features["image/encoded"].bytes_list.value[0] == b"jpeg bytes"
    assert features["image/labels"].int64_list.value == [2, 5]
    image = {"encoded", "format", "filename", "id", "height", "width", "labels"}
    assert set(features) == {f"image/{name}" for name in image} | {"mask/encoded"}


def test_serializing_twice_gives_the_same_bytes():
    assert len({serialize(RECORD) for _ in range(20)}) == 1


def test_parse_gives_back_what_was_serialized():
    parsed = tf.function(parse)(tf.constant(serialize(RECORD)))
    values = {name: value.numpy() for name, value in parsed.items()}
    labels = values.pop("labels")
    assert values == {
        "image": b"jpeg bytes",
        "mask": b"png bytes",
        "format": b"jpeg",
        "filename": b"a b.jpg",
        "id": b"17",
        "height": 3,
        "width": 4,
    }
    np.testing.assert_array_equal(labels, [2, 5])


def test_parse_of_a_record_without_mask_and_labels():
    bare = ImageRecord(b"x", "png", "a.png", "a", 1, 1, (), None)
    assert "mask/encoded" not in tf.train.Example.FromString(serialize(bare)).features.feature
    parsed = parse(tf.constant(serialize(bare)))
    assert parsed["mask"].numpy() == b""
    assert parsed["labels"].shape == (0,)


def test_split_reads_what_tensorflow_reads(synthetic_records):
    split = Split.load(synthetic_records, "source_train")
    files = [os.fspath(split.data_dir / shard) for shard in split.shards]
    assert len(files) == 2
    expected = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    assert [split.read(i) for i in range(len(split))] == expected


def test_infos_are_what_the_records_say(synthetic_records):
    for name in ("source_train", "target_train", "target_val"):
        split = Split.load(synthetic_records, name)
        for i, info in enumerate(split.infos):
            parsed = parse(tf.constant(split.read(i)))
            assert info.image_id == parsed["id"].numpy().decode()
            assert list(info.labels) == parsed["labels"].numpy().tolist()
            assert info.has_mask == bool(parsed["mask"].numpy())
            image = Image.open(io.BytesIO(parsed["image"].numpy()))
            assert image.size == (info.width, info.height)
            mask = Image.open(io.BytesIO(parsed["mask"].numpy()))
            assert (mask.mode, mask.size) == ("L", image.size)


def test_pairs_are_the_labels_of_all_images(synthetic_records):
    split = Split.load(synthetic_records, "target_train")
    assert len(split.pairs) == split.summary["pairs"] == sum(len(info.labels) for info in split.infos)
    index, label = split.pairs[-1]
    assert label in split.infos[index].labels
    assert set(split.label_map.ids("target")) >= {label for _, label in split.pairs}


def test_labels_are_known_absent_only_where_the_records_say_so(split_copy, synthetic_records):
    path = split_copy / "source_train.json"
    content = json.loads(path.read_text())
    assert content["options"]["exclude_other"] is True
    split = Split.load(split_copy, "source_train")
    both = sorted((*split.label_map.ids("source"), *split.label_map.ids("target")))
    assert list(split.known_labels) == both == list(range(1, split.label_map.num_labels + 1))
    for options in ({**content["options"], "exclude_other": False}, {"builder": "another"}):
        path.write_text(json.dumps({**content, "options": options}))
        assert Split.load(split_copy, "source_train").known_labels == split.label_map.ids("source")
    target = Split.load(synthetic_records, "target_train")
    assert target.known_labels == target.label_map.ids("target")


def test_many_threads_may_read_at_once(synthetic_records):
    split = Split.load(synthetic_records, "source_train")
    alone = [split.read(i) for i in range(len(split))]
    order = np.random.default_rng(0).integers(len(split), size=400).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(split.read, order)) == [alone[i] for i in order]


def test_missing_split_is_named_with_those_that_are_there(synthetic_records):
    assert finished_splits(synthetic_records) == ["source_train", "target_train", "target_val"]
    with pytest.raises(InputError, match=r"nothing\.json.*target_train, target_val"):
        Split.load(synthetic_records, "nothing")


@pytest.mark.parametrize("name", ["a" * 50, "b" * 200])
def test_long_names_are_found(split_copy, name):
    content = json.loads((split_copy / "source_train.json").read_text())
    (split_copy / f"{name}.json").write_text(json.dumps({**content, "split": name}, indent=2))
    assert finished_splits(split_copy) == sorted([name, "source_train"])


def test_load_refuses_shards_that_are_missing_or_cut_short(split_copy):
    shard = split_copy / "source_train-00001-of-00002.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord: has \d+ bytes, source_train\.json says"):
        Split.load(split_copy, "source_train")
    shard.unlink()
    with pytest.raises(InputError, match=r"00001-of-00002\.tfrecord: the shard is missing"):
        Split.load(split_copy, "source_train")


def test_read_names_file_and_record_where_the_length_is_wrong(split_copy):
    split = Split.load(split_copy, "source_train")
    info = split.infos[3]
    path = split_copy / split.shards[info.shard]
    data = bytearray(path.read_bytes())
    data[info.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{split.shards[info.shard]}: record 3 \({info.image_id}\)"):
        split.read(3)
    assert split.read(2)


def test_every_flipped_bit_of_a_record_is_found(split_copy):
    split = Split.load(split_copy, "source_train")
    info = split.infos[3]
    path = split_copy / split.shards[info.shard]
    whole = path.read_bytes()
    end = info.offset + info.length + FRAME_BYTES
    places = [*range(8 * info.offset, 8 * info.offset + 96), *range(8 * (end - 4), 8 * end)]
    places += np.random.default_rng(0).integers(8 * info.offset, 8 * end, 300).tolist()
    for place in places:
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{split.shards[info.shard]}: record 3 \({info.image_id}\): "):
            split.read(3)
        assert split.read(2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", [1], r"labels \[1\]: must be ascending ids of the source domain"),
        ("labels", [10, 21], "label id 21: the label map has the ids 1 to 20; build the split again"),
        ("labels", [0], "label id 0: the label map has the ids 1 to 20"),
        ("labels", [12, 10], "labels"),
        ("labels", [12, 12], "labels"),
        ("offset", 10**12, "ends at byte 10000000.* of a shard of"),
        ("length", 10**12, "ends at byte"),
        ("height", 0, "its image is"),
    ],
)
def test_index_entries_are_held_against_label_map_and_shard(split_copy, field, value, message):
    path = split_copy / "source_train.json"
    content = json.loads(path.read_text())
    content["records"][3][RecordInfo._fields.index(field)] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"source_train\.json: record 3 \(\d+\): {message}"):
        Split.load(split_copy, "source_train")


@pytest.mark.parametrize(
    "change",
    [
        {"records": None},
        {"records": [[0, 0]]},
        {"records": [[9, 0, 5, "a", [1], True, 2, 2]]},
        {"records": [[0, -1, 5, "a", [1], True, 2, 2]]},
        {"records": [[0, 0, 5, 7, [1], True, 2, 2]]},
        {"sha256": {}},
        {"sha256": {"../elsewhere.tfrecord": ""}, "bytes": {"../elsewhere.tfrecord": 1}},
        {"bytes": {}},
        {"domain": "both"},
        {"label_map": {}},
        {"options": []},
    ],
)
def test_damaged_indices_are_refused(split_copy, change):
    path = split_copy / "source_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=r"source_train\.json"):
        Split.load(split_copy, "source_train")


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "{}"])
def test_files_that_are_no_index_are_refused(tmp_path, text):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(InputError, match=r"train\.json"):
        Split.load(tmp_path, "train")


@pytest.mark.parametrize("value", [None, "", 0, 1, "true", []])
def test_whether_there_is_a_mask_is_true_or_false(split_copy, value):
    _edit_record(split_copy, 5, value)
    with pytest.raises(
        InputError, match=r"source_train\.json: is not the index of a split .*bad record line"
    ):
        Split.load(split_copy, "source_train")


def test_true_is_no_number_in_an_index(split_copy):
    for place in (0, 1, 2, 6, 7):
        _edit_record(split_copy, place, True)
        with pytest.raises(InputError, match="bad record line"):
            Split.load(split_copy, "source_train")


def test_records_that_are_missing_or_twice_in_an_index(split_copy):
    path = split_copy / "source_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "records": content["records"][1:]}))
    with pytest.raises(InputError, match=r"source_train\.json: says images_kept \d+, its records give"):
        Split.load(split_copy, "source_train")
    twice = [content["records"][1], *content["records"][1:]]
    del content["pairs"]
    path.write_text(json.dumps({**content, "records": twice}))
    with pytest.raises(InputError, match=r"source_train\.json: the image .* has more than one record"):
        Split.load(split_copy, "source_train")


def test_labels_of_a_record_are_held_to_the_index(split_copy):
    split = Split.load(split_copy, "source_train")
    own = split.label_map.ids("source")
    index = next(i for i, info in enumerate(split.infos) if len(info.labels) == 1)
    other = next(label for label in own if label not in split.infos[index].labels)
    _edit_record(split_copy, 4, [other], index)
    changed = Split.load(split_copy, "source_train")
    with pytest.raises(InputError, match=rf"record {index} .*the record has .*the index says \[{other}\]"):
        read_example(changed, index)
    streams = {"source": PairStream(changed, 0)}
    with pytest.raises(tf.errors.OpError):
        for _ in training_batches(streams, Transform(32, 32, mirror=False), len(streams["source"]), 0).take(
            1
        ):
            pass


def test_pipes_and_folders_are_no_splits(split_copy):
    found = finished_splits(split_copy)
    os.mkfifo(split_copy / "pipe.json")
    (split_copy / "folder.json").mkdir()
    (split_copy / "link.json").symlink_to("nowhere")
    assert finished_splits(split_copy) == found


def _edit_record(folder, place, value, index=0):
    path = folder / "source_train.json"
    content = json.loads(path.read_text())
    content["records"][index][place] = value
    path.write_text(json.dumps(content))
