"""Whatever is written is read back: run lengths, polygons, masks, label maps, records, flags."""

import itertools

import hypothesis.extra.numpy as arrays
import numpy as np
import tensorflow as tf
from fault_counts import COUNTS, SCALE
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from tfrecords.coco_masks import Region, decode, paint
from tfrecords.label_map import extend, text
from tfrecords.masks import check_stored_mask, encode_mask
from tfseg import cli
from tfseg.config import ModelConfig, preset
from tfseg.data.labels import Label, LabelMap, is_name
from tfseg.data.records import ImageRecord, parse, serialize
from tfseg.training.options import TrainingOptions

EXAMPLES = settings(
    max_examples=25 * SCALE,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)
MASKS = SHAPES.flatmap(lambda shape: arrays.arrays(bool, shape))
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: is_name(name) and name.strip())


def runs_of(mask):
    """COCO's run lengths of a mask, zeros first, column by column."""
    pixels = mask.ravel(order="F").astype(int)
    runs = [(value, len(list(group))) for value, group in itertools.groupby(pixels)]
    return [0] * (not runs or runs[0][0]) + [length for _, length in runs]


def rle(mask, counts):
    return {"size": list(mask.shape), "counts": counts}


@EXAMPLES
@given(MASKS)
def test_run_lengths(mask):
    COUNTS["round trips"] += 1
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for counts in (runs_of(mask), [float(run) for run in runs_of(mask)], compressed):
        np.testing.assert_array_equal(decode(rle(mask, counts), *mask.shape, "a"), mask)


@EXAMPLES
@given(SHAPES.flatmap(lambda shape: arrays.arrays(bool, (3, *shape))))
def test_several_run_lengths_are_united(masks):
    COUNTS["round trips"] += 1
    parts = [rle(mask, runs_of(mask)) for mask in masks]
    np.testing.assert_array_equal(decode(parts, *masks.shape[1:], "a"), masks.any(axis=0))


@EXAMPLES
@given(st.data())
def test_rectangles_cover_their_pixels(data):
    COUNTS["round trips"] += 1
    height, width = data.draw(st.integers(2, 20)), data.draw(st.integers(2, 20))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    expected = np.zeros((height, width), bool)
    expected[top:bottom, left:right] = True
    polygon = [left, top, right, top, right, bottom, left, bottom]
    np.testing.assert_array_equal(decode([polygon], height, width, "a"), expected)


@EXAMPLES
@given(st.lists(st.lists(st.integers(0, 24), min_size=6, max_size=6), min_size=2, max_size=4))
def test_polygons_are_united_and_move_with_their_points(polygons):
    COUNTS["round trips"] += 1
    alone = [decode([polygon], 32, 32, "a") for polygon in polygons]
    np.testing.assert_array_equal(decode(polygons, 32, 32, "a"), np.any(alone, axis=0))
    moved = [[number + (5, 3)[i % 2] for i, number in enumerate(polygon)] for polygon in polygons]
    expected = np.zeros((32, 32), bool)
    expected[3:, 5:] = np.any(alone, axis=0)[:-3, :-5]
    np.testing.assert_array_equal(decode(moved, 32, 32, "a"), expected)


@EXAMPLES
@given(st.data())
def test_a_triangle_has_its_area(data):
    COUNTS["round trips"] += 1
    x1, y1, x2, y2, x3, y3 = data.draw(st.lists(st.integers(0, 60), min_size=6, max_size=6))
    area = abs((x2 - x1) * (y3 - y1) - (x3 - x1) * (y2 - y1)) / 2
    sides = [(x1 - x2, y1 - y2), (x2 - x3, y2 - y3), (x3 - x1, y3 - y1)]
    assume(area > 0)
    found = decode([[x1, y1, x2, y2, x3, y3]], 60, 60, "a").sum()
    assert abs(found - area) <= sum(np.hypot(*side) for side in sides)


@EXAMPLES
@given(SHAPES.flatmap(lambda shape: arrays.arrays(bool, (4, *shape))), st.lists(st.booleans(), min_size=4))
def test_smaller_objects_lie_on_larger_ones_and_all_on_crowds(masks, crowds):
    COUNTS["round trips"] += 1
    regions = [
        Region(i, i + 1, crowd, rle(mask, runs_of(mask)))
        for i, (mask, crowd) in enumerate(zip(masks, crowds, strict=False))
    ]
    expected = np.zeros(masks.shape[1:], np.uint8)
    for y, x in np.ndindex(expected.shape):
        above = [(masks[i].sum(), -i) for i in range(4) if masks[i, y, x] and not crowds[i]]
        if above:
            expected[y, x] = 1 - min(above)[1]
        elif any(masks[i, y, x] for i in range(4)):
            expected[y, x] = 255
    np.testing.assert_array_equal(paint(regions, *expected.shape, "a"), expected)


@EXAMPLES
@given(SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 3, 255]))))
def test_masks_as_records_hold_them(mask):
    COUNTS["round trips"] += 1
    np.testing.assert_array_equal(check_stored_mask(encode_mask(mask), "a", (1, 3), *mask.shape), mask)


@EXAMPLES
@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), st.lists(NAMES, max_size=8, unique=True), NAMES)
def test_label_maps(tmp_path_factory, names, more, name):
    COUNTS["round trips"] += 1
    first, there = extend(None, names, "target", name)
    assert not there and [label.name for label in first.labels] == names
    both, there = extend(first, more, "source", name)
    assert there == [other for other in more if other in names]
    assert both.labels[: len(names)] == first.labels  # They keep their ids.
    assert extend(both, more, "source", name)[0] == both
    path = tmp_path_factory.getbasetemp() / "labels.json"
    path.write_text(text(both), encoding="utf-8")
    assert LabelMap.load(path) == LabelMap.from_dict(both.to_dict()) == both
    assert both.resolve([label.name for label in both.labels]) == tuple(label.id for label in both.labels)


@EXAMPLES
@given(st.lists(NAMES, min_size=6, max_size=6, unique=True))
def test_aliases(names):
    COUNTS["round trips"] += 1
    label_map = LabelMap(
        "two", (Label(1, names[0], "target", (*names[1:3],)), Label(2, names[3], "source", (*names[4:],)))
    )
    assert LabelMap.from_dict(label_map.to_dict()) == label_map
    assert label_map.resolve(names) == (1, 2)
    assert [label_map.find(name).id for name in names] == [1, 1, 1, 2, 2, 2]


@EXAMPLES
@given(
    st.binary(max_size=50),
    NAMES,
    NAMES,
    st.lists(st.integers(1, 254), unique=True),
    st.none() | st.binary(min_size=1, max_size=9),
)
def test_records(image, file_name, image_id, labels, mask):
    COUNTS["round trips"] += 1
    record = ImageRecord(image, "png", file_name, image_id, 3, 2**31, tuple(sorted(labels)), mask)
    parsed = parse(tf.constant(serialize(record)))
    assert parsed["image"].numpy() == image and parsed["mask"].numpy() == (mask or b"")
    assert parsed["filename"].numpy().decode() == file_name and parsed["id"].numpy().decode() == image_id
    assert (parsed["height"].numpy(), parsed["width"].numpy()) == (3, 2**31)
    assert tuple(parsed["labels"].numpy().tolist()) == record.labels


@EXAMPLES
@given(
    st.floats(0, 1e6, allow_nan=False),
    st.integers(1, 10**9),
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])),
    st.sampled_from(["encoder", "joint"]),
    st.booleans(),
)
def test_flags_as_flagfiles_hold_them(tmp_path_factory, rate, steps, split, stage, mirror):
    COUNTS["round trips"] += 1
    given_options = TrainingOptions(
        data_dir=".", model_dir="model", stage=stage, source_split=f"s{split}", learning_rate=rate,
        steps=steps, mirror=mirror, network={"factors": steps % 60000 + 1, "joint_gradient": mirror},
    )  # fmt: skip
    assert cli.parse(TrainingOptions, cli.flag_lines(given_options)) == given_options


@EXAMPLES
@given(
    st.integers(1, 60), st.integers(1, 254), st.integers(1, 65536), st.floats(1e-6, 1e6), st.booleans(),
    st.tuples(*[st.floats(0, 255)] * 3),
)  # fmt: skip
def test_configurations(side, labels, factors, scale, flag, mean):
    COUNTS["round trips"] += 1
    config = preset("tiny").replace(
        image_size=8 * side, num_labels=labels, factors=factors, feature_scale=scale, unit_features=flag,
        bgr_mean=mean,
    )  # fmt: skip
    assert ModelConfig.from_json(config.to_json()) == config
