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
        (["annotations", 0, "id"], 1.5, "has no id"),
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
        ("a program for Ghostscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"),
        ("a damaged text chunk", "tEXt"),
    ],
)
def test_bad_images_are_named(folder, content, name, data):
    path = folder / "images/1.png"
    if data is None:
        data = path.read_bytes()[:-300]
    elif data == "tEXt":
        data = bytearray(path.read_bytes())
        data[33:33] = b"\0\0\0\3tEXta\0b\0\0\0\0"
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


# What people's tools write.


def write(folder, content, encoding="utf-8"):
    path = folder / "instances.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_no_content(folder, content, encoding):
    selection = coco.select(write(folder, content, encoding), LABELS, coco.Rules())
    assert selection == select(folder, content)
    labels = folder / "labels.json"
    labels.write_text(json.dumps(LABELS.to_dict()), encoding=encoding)
    assert LabelMap.load(labels) == LABELS


def test_whole_numbers_may_be_written_as_floats(folder, content):
    expected = build(folder, content)
    for image in content["images"]:
        image |= {"id": float(image["id"]), "width": 20.0, "height": 20.0}
    for entry in content["annotations"]:
        entry |= {
            "id": float(entry["id"]),
            "image_id": float(entry["image_id"]),
            "iscrowd": float(entry["iscrowd"]),
        }
        entry["category_id"] = float(entry["category_id"])
        if isinstance(entry["segmentation"], dict):
            entry["segmentation"] = {"size": [20.0, 20.0], "counts": [0.0, 400.0]}
    for entry in content["categories"]:
        entry["id"] = float(entry["id"])
    assert build(folder, content) == expected


def test_iscrowd_null_and_a_list_of_one_rle(folder, content):
    entry = content["annotations"][0]
    entry |= {"iscrowd": None, "segmentation": [{"size": [SIDE, SIDE], "counts": [0, 40, SIDE * SIDE - 40]}]}
    build(folder, content)
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:, :2] = 2
    expected[10:14, 10:14] = 3
    np.testing.assert_array_equal(masks(folder)[1], expected)


def test_annotations_may_have_no_id_and_iscrowd_be_a_bool(folder, content):
    """As labelformat writes what it reads from YOLO's text files."""
    build(folder, content)
    expected = masks(folder)
    for one in content["annotations"]:
        del one["id"]
        one["iscrowd"] = bool(one["iscrowd"])
    build(folder, content)
    np.testing.assert_equal(masks(folder), expected)
    content["annotations"][2]["category_id"] = 7
    with pytest.raises(InputError, match="annotation number 3: category_id 7"):
        build(folder, content)


def test_categories_without_annotations_need_no_label(folder, content):
    content["categories"] += [{"id": 0, "name": "things"}, {"id": 1}]
    assert select(folder, content) == select(folder, {**content, "categories": content["categories"][:3]})


NAMES = [
    "Shot at 9.22\u202fPM.jpg",
    "v\u00a013.05.jpg",
    "\u5199\u771f\u30001.jpg",
    "\U0001f468\u200d\U0001f4bb.jpg",
    " a b .jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_spaces_and_joiners_are_parts_of_names(folder, content, name):
    content["images"][2] |= {"file_name": name, "id": name}
    for entry in content["annotations"][:2]:
        entry["image_id"] = name
    (folder / "images/1.png").rename(folder / "images" / name)
    build(folder, content)
    assert {info.image_id for info in Split.load(folder / "records", "train").infos} == {"3", name}


@pytest.mark.parametrize("bad", ["a\nb", "a\u2028b", "\x1b[31m", "\x7f", ""])
def test_control_characters_are_not(folder, content, bad):
    content["images"][2]["file_name"] = bad
    with pytest.raises(InputError, match="image 1: file_name must be"):
        select(folder, content)


def test_paths_of_windows_are_found_and_urls_explained(folder, content):
    (folder / "images/deep").mkdir()
    (folder / "images/1.png").rename(folder / "images/deep/1.png")
    content["images"][2]["file_name"] = "deep\\1.png"
    build(folder, content)
    record = parse(Split.load(folder / "records", "train").read(0))
    assert record["filename"].numpy() == b"deep/1.png"
    for name, message in (
        ("C:\\data\\1.png", "path of a Windows machine"),
        ("https://x.org/1.png", "the name is a URL: download"),
        ("..\\1.png", "leaves the folder"),
    ):
        content["images"][2]["file_name"] = name
        with pytest.raises(InputError, match=message):
            build(folder, content)


def test_a_backslash_may_belong_to_a_name(folder, content):
    (folder / "images/1.png").rename(folder / "images/a\\1.png")
    content["images"][2]["file_name"] = "a\\1.png"
    assert build(folder, content)["images_kept"] == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("images/1.png", "--images={folder} would fit"),
        ("train/1.png", "{folder}/images/1.png is there: the name has a folder too many"),
        ("6.png", "--images={folder}/images/more would fit"),
    ],
)
def test_missing_images_are_looked_for_nearby(folder, content, name, hint):
    (folder / "images/more").mkdir()
    (folder / "images/more/6.png").write_bytes(b"")
    content["images"][2]["file_name"] = name
    with pytest.raises(InputError) as caught:
        build(folder, content)
    assert "the image is missing (1 of 2" in str(caught.value)
    assert hint.format(folder=folder) in str(caught.value)


def spoil(content):
    """Makes six entries malformed, of six kinds; image 1 keeps one annotation, image 3 none."""
    content["annotations"] += [
        annotation(21, 1, 70, []),
        annotation(22, 1, 70, [[1, 2, 3, 4]]),
        annotation(23, 1, 70, {"size": [SIDE, SIDE], "counts": [3]}),
        annotation(24, 99, 70, square(1, 1, 2)),
        annotation(25, 1, 99, square(1, 1, 2)),
    ]
    content["annotations"][4]["segmentation"] = None
    return content


def test_all_malformed_annotations_are_told_at_once_before_an_image_is_read(folder, content):
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        build(folder, spoil(content))
    message = str(caught.value)
    assert "instances.json: 6 malformed entries (" in message
    assert all(f"annotation {number}" in message for number in (15, 21, 22, 23, 24, 25))
    assert "polygon of fewer than 3 points: 1" in message and "--malformed=skip" in message


def test_many_malformed_annotations_fit_a_message(folder, content):
    content["annotations"] += [annotation(100 + i, 1, 70, []) for i in range(500)]
    with pytest.raises(InputError, match=r"500 malformed entries \(empty segmentation: 500\).*and 480 more"):
        build(folder, content)


def test_malformed_annotations_are_left_out_and_counted(folder, content):
    expected = build(folder, {**content, "annotations": content["annotations"][:4]})
    summary = build(folder, spoil(content), malformed="skip")
    assert summary["notes"] == {
        "malformed, left out: annotation of no category": 1,
        "malformed, left out: annotation of no image": 1,
        "malformed, left out: empty segmentation": 1,
        "malformed, left out: no segmentation": 1,
        "malformed, left out: polygon of fewer than 3 points": 1,
        "malformed, left out: sum of RLE": 1,
    }
    assert summary["images_dropped"] == {"has a target category": 2, "no annotation": 2}
    assert summary["pairs_per_class"] == expected["pairs_per_class"]
    assert summary["options"]["malformed"] == "skip" and "malformed" not in expected["options"]


def test_a_malformed_annotation_of_the_other_domain_still_excludes_its_image(folder, content):
    content["annotations"] += [
        {**annotation(31, 1, 80, None), "iscrowd": "x"},
        {"image_id": 3, "category_id": 80},
    ]
    selection = select(folder, content, malformed="skip")
    assert selection.images == ()
    assert selection.dropped == {"has a target category": 4, "no annotation": 1}


def test_missing_and_damaged_images_are_left_out_by_choice(folder, content, capsys):
    (folder / "images/1.png").write_bytes(b"no image")
    summary = build(folder, content, malformed="skip")
    assert (summary["images_kept"], summary["images_dropped"]["no record could be made"]) == (1, 1)
    assert "left out of train: " in capsys.readouterr().err
    (folder / "images/1.png").unlink()
    summary = build(folder, content, malformed="skip")
    assert (summary["images_kept"], summary["images_dropped"]["image is missing"]) == (1, 1)
    (folder / "images/3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image is left"):
        build(folder, content, malformed="skip")


@pytest.mark.parametrize(
    "polygon",
    [[[30, 30, 40, 30, 40, 40]], [[5, 5, 9, 5, 7, 5]], [[3, 3, 3, 3, 3, 3]], [[-9, 0, -2, 0, -2, 9]]],
    ids=["outside", "flat", "a point", "left of it"],
)
def test_a_region_without_a_pixel_gives_no_pair(folder, content, polygon):
    content["annotations"][0]["segmentation"] = polygon
    summary = build(folder, content)
    assert summary["pairs_per_class"] == {"cup": 0, "pen": 1}
    assert summary["notes"] == {"labels without a pixel, dropped": 1}
    kept = build(folder, content, empty_regions="keep")
    assert kept["pairs_per_class"] == {"cup": 1, "pen": 1}
    assert kept["notes"] == {"labels without a pixel, kept": 1}


def test_target_labels_come_from_boxes_alone(folder, content):
    for entry in content["annotations"]:
        del entry["segmentation"]
        entry["bbox"] = [2, 2, 6, 6]
    content["annotations"][3]["segmentation"] = []
    with pytest.raises(InputError, match=r"no segmentation \(a box alone is enough with --domain=target\)"):
        select(folder, content)
    summary = build(folder, content, domain="target", exclude_other=False)
    assert (summary["pairs_per_class"], summary["masks"]) == ({"cat": 1}, 0)
    for bad, message in (([1, 2, 3], "bbox must be a list"), (None, "bbox must be"), ("1", "bbox must be")):
        content["annotations"][3]["bbox"] = bad
        with pytest.raises(InputError, match=message):
            select(folder, content, domain="target", exclude_other=False)
    for nowhere in ([20, 0, 5, 5], [2, 2, 0, 4], [-5, 2, 5, 5]):
        content["annotations"][3]["bbox"] = nowhere
        selection = select(folder, content, domain="target", exclude_other=False)
        assert {image.labels for image in selection.images} == {()}


def test_exif_is_refused_applied_or_ignored(folder, content):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "images/1.png", exif=exif)
    with pytest.raises(
        InputError, match=r"1\.png: has the EXIF orientation 6: .*--exif=apply .*--exif=ignore"
    ):
        build(folder, content)
    for choice, expected in (("apply", np.rot90(pixels, -1)), ("ignore", pixels)):
        summary = build(folder, content, exif=choice)
        done = {"apply": "applied", "ignore": "ignored"}[choice]
        assert summary["notes"][f"EXIF orientation {done}"] == 1
        record = parse(Split.load(folder / "records", "train").read(0))
        np.testing.assert_array_equal(decode_png(record["image"].numpy()), expected)


def test_whole_data_give_the_summary_that_they_always_gave(folder, content):
    summary = build(folder, content)
    assert "notes" not in summary
    assert list(summary["options"]) == [
        "builder", "annotations", "domain", "exclude_other", "min_area", "unlisted", "num_shards",
    ]  # fmt: skip
