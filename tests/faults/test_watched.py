"""Whoever looks into a folder while a command writes there sees a whole split or version, or none."""

import hashlib
import json
import shutil

import pytest
from commands import COMMANDS
from fault_counts import COUNTS, SCALE
from killable import Run

from export import manifest


def look_at_splits(out, seen):
    """Notes in `seen` the name of each split that is whole; fails on one that is not."""
    for path in out.glob("*.json"):
        try:
            before = path.read_bytes()
        except FileNotFoundError:
            continue
        content = json.loads(before)
        whole = True
        for shard, digest in content["sha256"].items():
            try:
                whole &= hashlib.sha256((out / shard).read_bytes()).hexdigest() == digest
            except FileNotFoundError:
                whole = False
        try:
            unchanged = path.read_bytes() == before
        except FileNotFoundError:
            unchanged = False  # The split was taken away to be replaced while we read it.
        assert whole or not unchanged, f"{path} is there, its shards are not"
        seen.append(hashlib.sha256(before).hexdigest()) if whole and unchanged else None


@pytest.mark.parametrize("name", ["build_coco", "build_folder"])
def test_splits_come_whole_and_are_replaced_whole(world, tmp_path, name):
    command, out, seen = COMMANDS[name], tmp_path / "out", []
    words = command.words(world, out)
    looks = 0

    def look():
        nonlocal looks
        looks += 1
        look_at_splits(out, seen)

    for changed in ([], ["--num_shards=2"]):  # The second build replaces the first.
        run = Run(command.module, [*words, *changed], tmp_path).poll_until_end(look)
        assert run.status == 0, run.err[-3000:]
    assert len(set(seen)) >= 2
    COUNTS["looks into record folders"] += looks


@pytest.mark.skipif(SCALE == 1, reason="part of make test-faults")
def test_versions_of_an_export_come_whole(world, tmp_path):
    command, out = COMMANDS["export"], tmp_path / "out"
    versions, looks = [], 0

    def look():
        nonlocal looks
        looks += 1
        for path in out.glob("[0-9]*"):
            manifest.check(path)
            versions.append(path.name)

    for number in (1, 2):
        words = [*command.words(world, out)[:-1], f"--version={number}"]
        run = Run(command.module, words, tmp_path).poll_until_end(look)
        assert run.status == 0, run.err[-3000:]
    assert set(versions) == {"1", "2"}
    COUNTS["looks into export folders"] += looks
    shutil.rmtree(out)
