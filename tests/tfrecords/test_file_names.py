"""Names and kinds of files that are found, or that neither hang a builder nor end it for all others."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from test_coco_builder import LABELS, SIDE, annotation, square

from tfrecords import coco
from tfrecords.folder import ImageFolder, build
from tfrecords.image_paths import images_in, locate
from tfrecords.masks import MaskRules, read_mask
from tfseg.data import images
from tfseg.data.images import read_image
from tfseg.errors import InputError


def build_coco(folder, *names, malformed="fail"):
    """Builds a split of images of these names; the file lists them from 1 on."""
    content = {
        "images": [{"id": i, "file_name": n, "height": SIDE, "width": SIDE} for i, n in enumerate(names, 1)],
        "annotations": [annotation(i, i, 70, square(2, 2, 6)) for i in range(1, len(names) + 1)],
        "categories": [{"id": 70, "name": "mug"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    rules = coco.Rules(malformed=malformed)
    return coco.build(
        folder / "instances.json", folder / "images", LABELS, rules, "train", folder / "records"
    )


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE)).save(path, "JPEG")


@pytest.mark.parametrize("listed, stored", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_composed_and_decomposed(tmp_path, listed, stored):
    listed, stored = (unicodedata.normalize(form, "café über.jpg") for form in (listed, stored))
    save(tmp_path / "images" / stored)
    assert locate(tmp_path / "images", listed) == stored != listed
    assert build_coco(tmp_path, listed)["images_kept"] == 1


@pytest.mark.parametrize("listed", ["A.JPG", "a.jpeg", "a", " a.jpg", "%61.jpg", "a.jpg "])
def test_a_name_spelt_otherwise_is_pointed_to(tmp_path, listed):
    save(tmp_path / "images/a.jpg")
    with pytest.raises(InputError, match=r"images/a\.jpg is there: is that what is meant\?"):
        build_coco(tmp_path, listed)


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "d/" * 3000 + "a.jpg"])
def test_a_name_longer_than_any_file_is_a_missing_image(tmp_path, name):
    save(tmp_path / "images/a.jpg")
    with pytest.raises(InputError, match=r"the image is missing \(1 of 2 images"):
        build_coco(tmp_path, "a.jpg", name)
    summary = build_coco(tmp_path, "a.jpg", name, malformed="skip")
    assert summary["images_kept"] == 1 and summary["images_dropped"] == {"image is missing": 1}


def test_names_of_255_bytes_and_with_characters_of_patterns(tmp_path):
    names = [
        "n" * 251 + ".jpg",
        "é" * 125 + ".jpg",
        "[1].jpg",
        "*.jpg",
        "{a}?.jpg",
        "b\\c.jpg",
        "-x.jpg",
        "~.jpg",
    ]
    for name in names:
        save(tmp_path / "images" / name)
    assert build_coco(tmp_path, *names)["images_kept"] == len(names)


def _special(kind, path):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    else:
        with open(path, "wb") as file:
            file.truncate(images.MAX_BYTES + 1)  # Takes no room on a disk.


@pytest.mark.parametrize("val_fraction", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["pipe", "endless device", "broken link", "link to itself", "too large"])
def test_what_is_no_file_is_refused_or_left_out(tmp_path, kind, val_fraction):
    (tmp_path / "images/cat").mkdir(parents=True)
    for number in range(8):
        Image.new("L", (SIDE, SIDE), number).save(tmp_path / f"images/cat/{number}.png")
    _special(kind, tmp_path / "images/cat/b.jpg")
    with pytest.raises(InputError, match=r"cat/b\.jpg: (is a pipe or a device|.*cannot be read|has 1,07)"):
        build(ImageFolder(tmp_path / "images", LABELS), tmp_path / "records", "t", "v", val_fraction)
    folder = ImageFolder(tmp_path / "images", LABELS, malformed="skip")
    summaries = build(folder, tmp_path / "records", "t", "v", val_fraction)
    assert sum(summary["images_kept"] for summary in summaries) == 8
    dropped = [summary["images_dropped"].get("no record could be made", 0) for summary in summaries]
    assert sum(dropped) == 1
    for read in (read_image, lambda path: read_mask(path, MaskRules((1,)), SIDE, SIDE)):
        with pytest.raises(InputError, match=r"cat/b\.jpg: "):
            read(tmp_path / "images/cat/b.jpg")


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    save(tmp_path / "cat/a.jpg")
    (tmp_path / "cat/again").symlink_to("..")
    (tmp_path / "dog").symlink_to("cat")
    assert images_in(tmp_path) == ["cat/a.jpg", "dog/a.jpg"]


def test_one_file_is_one_image_however_it_is_spelt(tmp_path):
    save(tmp_path / "images/x/a.jpg")
    for name in ("x/a.jpg", "./x/a.jpg", "x//a.jpg", "x/./a.jpg", "x\\a.jpg", ".\\x\\a.jpg"):
        assert locate(tmp_path / "images", name) == "x/a.jpg"
    (tmp_path / "labels.csv").write_text("x/a.jpg,cat\n./x/a.jpg,cat\n")
    folder = ImageFolder(tmp_path / "images", LABELS, csv_file=tmp_path / "labels.csv")
    assert build(folder, tmp_path / "records", "train")[0]["images_kept"] == 1


def test_a_name_with_control_characters_is_told_as_it_is(tmp_path):
    save(tmp_path / "images/cat/a\nb.jpg")
    with pytest.raises(InputError, match=r"the name is not UTF-8, or has control characters"):
        build(ImageFolder(tmp_path / "images", LABELS), tmp_path / "records", "train")


def test_a_damage_without_a_reason_is_named_by_its_kind(tmp_path):
    from image_zoo import png

    with pytest.raises(InputError, match=r"cannot be decoded \(\w+\)"):  # A palette is missing.
        read_image(png(np.ones((4, 4, 1)), 8, 3))
