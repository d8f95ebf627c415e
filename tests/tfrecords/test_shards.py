"""Shards: the same bytes for the same input, and all or nothing whatever happens."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slow_build
import tensorflow as tf

from tfrecords import coco, synthetic
from tfrecords.shards import check_split_name, write_split
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that nobody has waited for is dead all the same.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_any_number_of_workers_gives_the_same_bytes(synthetic_dir, tmp_path):
    label_map = LabelMap.load(synthetic_dir / "labels.json")
    for workers in (1, 2, 3):
        coco.build(
            synthetic_dir / "coco/annotations/instances_train.json",
            synthetic_dir / "coco/train",
            label_map,
            coco.Rules(),
            "train",
            tmp_path / str(workers),
            num_shards=4,
            workers=workers,
        )
    alone = contents(tmp_path / "1")
    assert len(alone) == 5
    assert contents(tmp_path / "2") == alone
    assert contents(tmp_path / "3") == alone


def test_building_again_gives_the_same_bytes(tmp_path):
    slow_build.build(tmp_path)
    before = contents(tmp_path)
    slow_build.build(tmp_path)
    assert contents(tmp_path) == before


def test_sha256_and_bytes_are_those_of_the_files(tmp_path):
    summary = slow_build.build(tmp_path)
    files = contents(tmp_path)
    assert len(summary["sha256"]) == 8
    for name, digest in summary["sha256"].items():
        assert hashlib.sha256(files[name]).hexdigest() == digest
        assert len(files[name]) == summary["bytes"][name]


@pytest.mark.parametrize("num_shards", [1, 7, 40, 50])
def test_records_keep_their_order_over_any_number_of_shards(tmp_path, num_shards):
    slow_build.build(tmp_path, num_shards=num_shards)
    split = Split.load(tmp_path, "train")
    assert [info.image_id for info in split.infos] == [str(i) for i in range(40)]
    files = [os.fspath(tmp_path / f"train-{i:05d}-of-{num_shards:05d}.tfrecord") for i in range(num_shards)]
    read = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    assert read == [split.read(i) for i in range(40)]


def test_another_number_of_shards_leaves_no_old_ones(tmp_path):
    (tmp_path / "train_more-00000-of-00001.tfrecord").write_bytes(b"of another split")
    slow_build.build(tmp_path, num_shards=5)
    slow_build.build(tmp_path, num_shards=2)
    assert sorted(contents(tmp_path)) == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "train.json",
        "train_more-00000-of-00001.tfrecord",
    ]


def failing(number):
    if number == 30:
        raise InputError("image 30 is broken")
    return slow_build.make_record(None, 0, number)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_build_leaves_the_earlier_split(tmp_path, workers):
    slow_build.build(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="image 30 is broken"):
        write_split(tmp_path, slow_build.HEAD, range(40), failing, 8, workers)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def start_slow(folder, pids, workers):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, slow_build.__file__, str(folder), str(pids), "0.05", str(workers)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_half_way_and_build_again(tmp_path, workers):
    folder, pids, clean = tmp_path / "records", tmp_path / "pids", tmp_path / "clean"
    pids.mkdir()
    slow_build.build(clean)
    slow_build.build(folder, num_shards=3)
    before = contents(folder)
    building = folder / ".train.building"
    process = start_slow(folder, pids, workers)
    wait_until(lambda: building.is_dir() and len(list(building.iterdir())) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert building.is_dir()
    assert contents(folder) == before
    assert len(Split.load(folder, "train")) == 40
    # The workers go with their parent and write no more.
    workers_seen = [int(path.name) for path in pids.iterdir()]
    assert workers_seen
    wait_until(lambda: not any(alive(pid) for pid in workers_seen))
    slow_build.build(folder)
    assert contents(folder) == contents(clean)
    assert not building.exists()


def test_a_kill_while_moving_in_leaves_no_split_rather_than_a_mixed_one(tmp_path, monkeypatch):
    slow_build.build(tmp_path, num_shards=2)
    moved = []

    def replace(source, destination, real=os.replace):
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(destination)
        real(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        slow_build.build(tmp_path, num_shards=3)
    monkeypatch.undo()
    with pytest.raises(InputError, match="no finished split"):
        Split.load(tmp_path, "train")
    slow_build.build(tmp_path, num_shards=3)
    assert len(Split.load(tmp_path, "train")) == 40
    assert len(contents(tmp_path)) == 4


def test_two_builders_of_one_split_do_not_meet(tmp_path):
    building = tmp_path / ".train.building"
    building.mkdir()
    descriptor = os.open(building, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is building there"):
        slow_build.build(tmp_path)
    os.close(descriptor)
    slow_build.build(tmp_path)
    assert len(Split.load(tmp_path, "train")) == 40


def test_bad_arguments_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        slow_build.build(tmp_path / "file")
    with pytest.raises(InputError, match="--num_shards=-1"):
        slow_build.build(tmp_path, num_shards=-1)
    with pytest.raises(InputError, match="--workers=0"):
        slow_build.build(tmp_path, workers=0)
    for name in ("", "a/b", "../a", ".hidden", "verify", "a b", "-x"):
        with pytest.raises(InputError, match="split name"):
            check_split_name(name)
    assert check_split_name("train_aug-2.1") == "train_aug-2.1"


def test_the_same_image_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="the image 3 is listed twice"):
        write_split(tmp_path, slow_build.HEAD, [1, 2, 3, 3], failing)


def test_synthetic_records_are_whole(synthetic_records):
    for name, images in (("source_train", 22), ("target_train", 16), ("target_val", 8)):
        split = Split.load(synthetic_records, name)
        assert len(split) == images
        assert split.label_map == synthetic.label_map()
