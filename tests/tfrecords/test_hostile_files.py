"""Mutated files: whatever a builder is given, it builds what all readers see alike, or refuses in one line.

`TFSEG_FAULTS=10` tries ten times as many.
"""

import copy
import json
import random

import image_zoo
import numpy as np
import pytest
import tensorflow as tf
from fault_counts import COUNTS, SCALE
from PIL import Image
from test_coco_builder import CONTENT, LABELS, SIDE

from tfrecords import coco
from tfrecords.folder_lists import read_rows
from tfrecords.images import check_stored, store_image
from tfrecords.masks import MaskRules, read_mask
from tfrecords.voc_files import read_list, read_objects
from tfseg.data.images import read_image
from tfseg.data.transform import decode_image
from tfseg.errors import InputError

WEIRD = [
    None, [], {}, "", 0, -1, 1.5, 1.0, 1e400, float("nan"), 10**30, "x", True, [[]], [{}], [None], [1, 2],
    "1", "a/b", "..", "/x", "a\\b", "\ud800", [[1, 2, 3, 4, 5, 6]], [[1e9] * 6], {"size": None},
    {"size": [SIDE, SIDE], "counts": "abc"}, {"size": [SIDE, SIDE], "counts": [1.0, 399.0]},
]  # fmt: skip


def mutate(data, rng):
    """Bytes with some bits flipped, cut short, with bytes put in, or with another header."""
    data, how = bytearray(data), rng.randrange(4)
    if how == 0:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == 1:
        del data[rng.randrange(len(data)) :]
    elif how == 2:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(rng.randrange(1, 9))
    else:
        data[rng.randrange(min(len(data), 60))] = rng.randrange(256)
    return bytes(data)


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_images_decode_here_as_there_or_are_refused(tmp_path):
    rng = random.Random(1)
    zoo = [*image_zoo.plain().values(), *image_zoo.odd().values(), *image_zoo.oriented().values()]
    built = refused = 0
    for _ in range(300 * SCALE):
        COUNTS["mutated images and masks"] += 1
        data = mutate(rng.choice(zoo), rng)
        (tmp_path / "mask.png").write_bytes(data)
        try:
            stored = store_image(data, "a.jpg", rng.choice(["error", "apply", "ignore"]))
            seen = read_image(stored.data, upright=False)
            np.testing.assert_array_equal(decode_image(tf.constant(stored.data)), seen)
            assert check_stored(stored.data, "a.jpg") == (stored.format, stored.height, stored.width)
            built += 1
        except InputError as error:
            assert str(error).startswith("a.jpg: ")
            refused += 1
        try:
            found = read_mask(tmp_path / "mask.png", MaskRules((1, 2)), *image_zoo.SMOOTH.shape[:2])
            assert set(np.unique(found)) <= {0, 1, 2, 255}
        except InputError as error:
            assert "mask.png: " in str(error)
    assert built > 50 and refused > 50


def places(content, path=()):
    """The paths to all values within a JSON document."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def spoilt(content, rng):
    """A copy of which one or two values are missing or strange."""
    content = copy.deepcopy(content)
    for _ in range(rng.randrange(1, 3)):
        *parents, last = rng.choice(list(places(content)))
        at = content
        for key in parents:
            at = at[key]
        if rng.random() < 0.2:
            del at[last]
        else:
            at[last] = copy.deepcopy(rng.choice(WEIRD))
    return content


def test_mutated_annotations_are_built_or_refused(tmp_path):
    rng, path = random.Random(2), tmp_path / "instances.json"
    (tmp_path / "images").mkdir()
    for number in range(1, 6):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"images/{number}.png")
    built = refused = 0
    for _ in range(120 * SCALE):
        COUNTS["malformed inputs"] += 1
        path.write_text(json.dumps(spoilt(CONTENT, rng)))
        rules = coco.Rules(
            domain=rng.choice(["source", "target"]),
            exclude_other=rng.random() < 0.5,
            min_area=rng.choice([0, 2]),
            unlisted=rng.choice(["error", "ignore", "background"]),
            malformed=rng.choice(["fail", "skip"]),
        )
        try:
            coco.build(path, tmp_path / "images", LABELS, rules, "train", tmp_path / "records")
            built += 1
        except InputError:
            refused += 1
        assert not list((tmp_path / "records").glob(".*"))
    assert built > 10 and refused > 10


def test_mutated_texts_are_read_or_refused(tmp_path):
    rng, path = random.Random(3), tmp_path / "a.txt"
    text = '<?xml version="1.0" encoding="gb2312"?><annotation><object><name>cat</name></object></annotation>'
    readers = (
        read_objects,
        lambda path: read_list(path, lambda stem: True),
        lambda path: list(read_rows(path)),
    )
    refused = 0
    for _ in range(500 * SCALE):
        COUNTS["malformed inputs"] += 1
        path.write_bytes(mutate(text.encode(), rng))
        for read in readers:
            try:
                read(path)
            except InputError as error:
                assert "a.txt: " in str(error)
                refused += 1
    assert refused > 500
