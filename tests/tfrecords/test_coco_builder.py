"""What is kept of a COCO folder, and what is refused."""

import copy
import io
import json

import numpy as np
import pytest
from PIL import Image

from tfrecords import coco
from tfseg.data.labels import Label, LabelMap
from tfseg.data.records import Split, parse
from tfseg.errors import InputError

LABELS = LabelMap(
    "two", (Label(1, "cat", "target"), Label(2, "cup", "source", ("mug",)), Label(3, "pen", "source"))
)
SIDE = 20


def square(left, top, side):
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, image, category, segmentation, **more):
    area = more.pop("area", 1)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": 0,
        **more,
    }


FULL_RLE = {"size": [SIDE, SIDE], "counts": [0, SIDE * SIDE]}
CONTENT = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (5, 3, 1, 2, 4)],
    "annotations": [
        annotation(11, 1, 70, square(2, 2, 6), area=36),
        annotation(12, 1, 90, square(10, 10, 4), area=16),
        annotation(13, 2, 70, square(2, 2, 6), area=36),
        annotation(14, 2, 80, square(4, 4, 2), area=4),
        annotation(15, 3, 90, FULL_RLE, iscrowd=1, area=400),
        annotation(16, 5, 70, square(0, 0, 3), area=9),
        annotation(17, 5, 80, FULL_RLE, iscrowd=1, area=400),
    ],
    "categories": [{"id": 70, "name": "mug"}, {"id": 80, "name": "cat"}, {"id": 90, "name": "pen"}],
}


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(1, 6):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    return tmp_path


def select(folder, content, **rules):
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return coco.select(path, LABELS, coco.Rules(**rules))


def build(folder, content, **rules):
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return coco.build(path, folder / "images", LABELS, coco.Rules(**rules), "train", folder / "records")


def masks(folder):
    split = Split.load(folder / "records", "train")
    parsed = [parse(split.read(i)) for i in range(len(split))]
    return {int(p["id"].numpy()): decode_png(p["mask"].numpy()) for p in parsed}


def decode_png(data):
    return np.array(Image.open(io.BytesIO(data)))


def test_images_with_a_category_of_the_other_domain_are_dropped_whole(folder, content):
    selection = select(folder, content)
    # 2 has a cat, 5 a crowd of cats, 4 nothing; 3 has a crowd alone and so no label.
    assert [(image.image_id, image.labels) for image in selection.images] == [(1, (2, 3)), (3, ())]
    assert selection.seen == 5
    assert selection.dropped == {"has a target category": 2, "no annotation": 1}


def test_without_exclusion_they_are_kept_with_those_pixels_ignored(folder, content):
    summary = build(folder, content, exclude_other=False)
    assert summary["images_kept"] == 4
    assert summary["images_dropped"] == {"no annotation": 1}
    assert summary["pairs_per_class"] == {"cup": 3, "pen": 1}
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[2:8, 2:8] = 2
    expected[4:6, 4:6] = 255
    np.testing.assert_array_equal(masks(folder)[2], expected)


def test_the_rule_is_symmetric(folder, content):
    selection = select(folder, content, domain="target")
    assert selection.dropped == {"has a source category": 4, "no annotation": 1}


def test_summary_masks_and_bytes_of_the_build(folder, content):
    summary = build(folder, content)
    assert (summary["images_seen"], summary["images_kept"], summary["pairs"]) == (5, 2, 2)
    assert summary["pairs_per_class"] == {"cup": 1, "pen": 1}
    assert summary["images_without_label"] == 1
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[2:8, 2:8] = 2
    expected[10:14, 10:14] = 3
    found = masks(folder)
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[3], np.full((SIDE, SIDE), 255))
    first = parse(Split.load(folder / "records", "train").read(0))
    assert first["image"].numpy() == (folder / "images/1.png").read_bytes()


def test_min_area_decides_on_labels_by_the_files_area(folder, content):
    selection = select(folder, content, min_area=16)
    assert selection.images[0].labels == (2, 3)
    selection = select(folder, content, min_area=17)
    assert selection.images[0].labels == (2,)
    assert len(selection.images[0].regions) == 2


def test_unlisted_categories(folder, content):
    content["categories"][2]["name"] = "quill"
    with pytest.raises(InputError, match="does not list: quill"):
        select(folder, content)
    ignored = select(folder, content, unlisted="ignore")
    assert [(region.value) for region in ignored.images[0].regions] == [2, 255]
    left_out = select(folder, content, unlisted="background")
    assert [(region.value) for region in left_out.images[0].regions] == [2]
    # Image 3 has nothing but the unlisted category.
    assert [image.image_id for image in ignored.images] == [1, 3]
    assert [image.image_id for image in left_out.images] == [1]


def test_nothing_left_is_an_error(folder, content):
    content["annotations"] = content["annotations"][2:4]
    with pytest.raises(InputError, match=r"no image is left of 5.*target category: 1, no annotation: 4"):
        build(folder, content)
    assert not any((folder / "records").glob("*"))


def change(path, value):
    """A function that sets (or, for `KeyError`, removes) one place in the content."""

    def apply(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        if value is KeyError:
            del content[last]
        else:
            content[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["images"], KeyError, '"images" must be a list'),
        (["annotations"], {}, '"annotations" must be a list'),
        (["categories"], [1], '"categories" must be a list of objects'),
        (["images", 0, "id"], KeyError, "has no id"),
        (["images", 0, "id"], 1.5, "has no id"),
        (["images", 0, "id"], "a\ud800", "has no id"),
        (["images", 0, "id"], 1, '"images" has the id 1 more than once'),
        (["images", 2, "file_name"], KeyError, "image 1: file_name"),
        (["images", 2, "file_name"], "../1.png", "image 1: file_name '../1.png' leaves"),
        (["images", 2, "file_name"], "/etc/passwd", "leaves the folder"),
        (["images", 2, "file_name"], "a\0b", "image 1: file_name"),
        (["images", 2, "width"], "20", "image 1: width"),
        (["images", 2, "height"], 0, "image 1: height"),
        (["images", 2, "height"], KeyError, "image 1: height"),
        (["categories", 0, "id"], KeyError, "has no id"),
        (["categories", 0, "name"], KeyError, "category 70: name"),
        (["categories", 0, "name"], 5, "category 70: name"),
        (["categories", 0, "id"], 80, '"categories" has the id 80 more than once'),
        (["annotations", 0, "id"], KeyError, "has no id"),
        (["annotations", 0, "id"], 12, '"annotations" has the id 12 more than once'),
        (["annotations", 0, "image_id"], 99, "annotation 11: image_id 99 is no image"),
        (["annotations", 0, "image_id"], KeyError, "annotation 11: image_id None"),
        (["annotations", 0, "image_id"], [1], r"annotation 11: image_id \[1\]"),
        (["annotations", 0, "category_id"], 71, "annotation 11: category_id 71 is no category"),
        (["annotations", 0, "category_id"], {}, "annotation 11: category_id"),
        (["annotations", 0, "segmentation"], KeyError, "annotation 11: has no segmentation"),
        (["annotations", 0, "iscrowd"], 2, "annotation 11: iscrowd"),
        (["annotations", 0, "iscrowd"], [], "annotation 11: iscrowd"),
        (["annotations", 0, "segmentation"], [[1, 2, 3]], "image 1, annotation 11: a polygon"),
        (["images", 2, "file_name"], "9.png", "9.png: the image is missing"),
        (["images", 2, "width"], 21, r"1\.png: is 20x20, but .*instances\.json says 21x20"),
    ],
)
def test_malformed_files_are_refused_by_file_and_id(folder, content, path, value, message):
    change(path, value)(content)
    with pytest.raises(InputError, match=message):
        build(folder, content)
    assert not any((folder / "records").glob("*"))


@pytest.mark.parametrize("area", [KeyError, "9", -1, float("nan"), True])
def test_min_area_needs_areas(folder, content, area):
    change(["annotations", 0, "area"], area)(content)
    select(folder, content)
    with pytest.raises(InputError, match="annotation 11: --min_area needs its area"):
        select(folder, content, min_area=2)


@pytest.mark.parametrize("text", ["", "[", "[]", "null", '{"images": NaN}', "[" * 100_000, "\xff"])
def test_files_that_are_no_coco_json_are_refused(folder, text):
    path = folder / "instances.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"instances\.json"):
        coco.select(path, LABELS, coco.Rules())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty", b""),
        ("text", b"no image at all"),
        ("cut", None),
        ("bitmap", "BMP"),
    ],
)
def test_bad_images_are_named(folder, content, name, data):
    path = folder / "images/1.png"
    if data is None:
        data = path.read_bytes()[:-300]
    elif data == "BMP":
        Image.new("RGB", (SIDE, SIDE)).save(path, "BMP")
        data = path.read_bytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"images/1\.png: "):
        build(folder, content)
    assert not any((folder / "records").glob("*"))


def test_real_sample_keeps_44_of_66(real_sample, voc20_coco60, tmp_path):
    source = real_sample / "coco"
    arguments = (source / "annotations/instances_train2017.json", source / "train2017", voc20_coco60)
    summary = coco.build(*arguments, coco.Rules(), "train", tmp_path)
    assert (summary["images_seen"], summary["images_kept"]) == (66, 44)
    assert summary["images_dropped"] == {"has a target category": 20, "no annotation": 2}
    assert len(summary["pairs_per_class"]) == 60
    assert (
        summary["pairs"]
        == sum(summary["pairs_per_class"].values())
        == len(Split.load(tmp_path, "train").pairs)
    )
    selection = coco.select(arguments[0], voc20_coco60, coco.Rules(exclude_other=False))
    assert len(selection.images) == 64
    assert selection.dropped == {"no annotation": 2}
