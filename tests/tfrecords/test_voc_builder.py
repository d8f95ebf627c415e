"""Records from VOC folders: labels, masks, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from tfrecords import voc
from tfseg.data.labels import Label, LabelMap
from tfseg.data.records import Split, parse
from tfseg.data.voc_colors import save_indexed_png
from tfseg.errors import InputError

LABELS = LabelMap(
    "three", (Label(1, "cat", "target", ("kitten",)), Label(2, "dog", "target"), Label(3, "cup", "source"))
)
SIZE = (12, 16)


def xml(*names, extra=""):
    objects = "".join(f"<object><name>{name}</name>{extra}</object>" for name in names)
    return f"<annotation>{objects}</annotation>"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation", "Masks"):
        (root / name).mkdir(parents=True)
    for i, stem in enumerate("abc"):
        pixels = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{stem}.{'png' if stem == 'b' else 'jpg'}")
    (root / "Annotations/a.xml").write_text(xml("dog", " cat ", "dog"))
    (root / "Annotations/b.xml").write_text(xml("kitten", extra="<difficult>1</difficult>"))
    (root / "Annotations/c.xml").write_text(xml())
    save_indexed_png(root / "Masks/a.png", mask(0, 1, 2, 255))
    save_indexed_png(root / "Masks/b.png", mask(0, 2))
    (root / "ImageSets/Segmentation/all.txt").write_text("b\r\na\r\n\r\nc\r\n")
    return root


def mask(*values):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[: len(values), 0] = values
    return pixels


def build(root, split="all", **how):
    how = {"masks": "Masks", **how}
    return voc.build(voc.VocFolder(root, LABELS, **how), split, root.parent / "records", "val")


def labels_of(root):
    return {info.image_id: info.labels for info in Split.load(root.parent / "records", "val").infos}


def test_labels_come_from_the_xml_difficult_ones_too(root):
    summary = build(root)
    assert labels_of(root) == {"b": (1,), "a": (1, 2), "c": ()}
    assert summary["pairs_per_class"] == {"cat": 2, "dog": 1}
    assert (summary["images_kept"], summary["masks"], summary["images_without_label"]) == (3, 2, 1)


def test_labels_come_from_the_masks_by_choice(root):
    (root / "ImageSets/Segmentation/two.txt").write_text("a\nb\n")
    build(root, "two", labels_from="masks")
    assert labels_of(root) == {"a": (1, 2), "b": (2,)}
    with pytest.raises(InputError, match=r"c\.png: the mask cannot be read"):
        build(root, labels_from="masks")
    with pytest.raises(InputError, match="--labels_from=masks needs --masks"):
        build(root, labels_from="masks", masks="")


def test_masks_are_stored_as_indices_and_images_as_they_are(root):
    build(root)
    split = Split.load(root.parent / "records", "val")
    first = {name: value.numpy() for name, value in parse(split.read(0)).items()}
    assert (first["format"], first["filename"], first["id"]) == (b"png", b"b.png", b"b")
    assert first["image"] == (root / "JPEGImages/b.png").read_bytes()
    stored = Image.open(io.BytesIO(first["mask"]))
    assert stored.mode == "L"
    np.testing.assert_array_equal(np.array(stored), mask(0, 2))
    assert not split.infos[2].has_mask


def test_grey_masks_are_read_and_no_masks_are_possible(root):
    Image.fromarray(mask(0, 1)).save(root / "Masks/a.png")
    build(root)
    assert build(root, masks="")["masks"] == 0


def write_mask(name, image):
    return lambda root: image.save(root / "Masks" / name)


def write_text(name, text):
    return lambda root: (root / name).write_text(text)


def write_bytes(name, data):
    return lambda root: (root / name).write_bytes(data)


def remove(name):
    return lambda root: (root / name).unlink()


LISTING = "ImageSets/Segmentation/all.txt"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (write_mask("a.png", Image.new("RGB", SIZE[::-1])), r"a\.png: the mask is a PNG of mode RGB"),
        (write_mask("a.png", Image.new("I;16", SIZE[::-1])), r"a\.png: the mask is a PNG of mode I;16"),
        (write_mask("a.png", Image.new("L", (9, 12))), r"a\.png: the mask is 9x12 .* its image 16x12"),
        (write_mask("a.png", Image.fromarray(mask(0, 3))), r"a\.png: the mask has the value 3;"),
        (write_mask("a.png", Image.fromarray(mask(4, 254))), r"a\.png: the mask has the values 4, 254;"),
        (write_bytes("Masks/a.png", b"\x89PNG"), r"a\.png: cannot be decoded"),
        (write_text("Annotations/a.xml", "<annotation>"), r"a\.xml: is not XML"),
        (write_text("Annotations/a.xml", ""), r"a\.xml: is not XML"),
        (write_text("Annotations/a.xml", "<voc/>"), r"a\.xml: is not a VOC annotation"),
        (write_bytes("Annotations/a.xml", b"\xff\xfe\x00"), r"a\.xml: is not XML"),
        (write_text("Annotations/a.xml", '<?xml version="1.0" encoding="none"?><a/>'), r"a\.xml: is not XML"),
        (write_text("Annotations/a.xml", xml("bird")), r"a\.xml: object 1: the class 'bird' is not listed"),
        (write_text("Annotations/a.xml", xml("cat", "")), r"a\.xml: object 2: the class ''"),
        (write_text("Annotations/a.xml", xml("cup")), r"a\.xml: .*'cup' is of the source domain"),
        (write_text("Annotations/a.xml", "<annotation><object/></annotation>"), r"object 1: the class ''"),
        (remove("Annotations/a.xml"), r"a\.xml: the annotation cannot be read"),
        (remove("JPEGImages/a.jpg"), r"JPEGImages/a\.jpg: the image is missing"),
        (write_bytes("JPEGImages/a.jpg", b"\xff\xd8\xff"), r"a\.jpg: cannot be decoded"),
        (remove(LISTING), r"all\.txt: cannot be read .* lists there: none"),
        (write_text(LISTING, "\n"), "lists no image"),
        (write_text(LISTING, "a\nb\na\n"), "lists the image a 2 times"),
        (write_text(LISTING, "a\nb 1\n"), "line 2: the name of one image"),
        (write_text(LISTING, "/JPEGImages/a.jpg /Masks/a.png"), "line 1: the name of one image"),
        (write_text(LISTING, "../a"), "line 1: the name of one image"),
        (write_bytes(LISTING, b"\xff\xfe\x00"), "is not a text file"),
    ],
)
def test_bad_folders_are_refused_by_file(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        build(root)
    assert not any((root.parent / "records").glob("*"))


def test_missing_folders_are_refused(root):
    with pytest.raises(InputError, match="--masks=SegmentationClass"):
        build(root, masks="SegmentationClass")
    with pytest.raises(InputError, match="JPEGImages; the folder VOC2012 itself is wanted"):
        build(root.parent)


def test_a_bomb_of_entities_is_refused(root):
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    text = f'<!DOCTYPE annotation [<!ENTITY e0 "cat">{entities}]><annotation>&e11;</annotation>'
    (root / "Annotations/a.xml").write_text(text)
    with pytest.raises(InputError, match=r"a\.xml: is not XML"):
        build(root)


@pytest.mark.parametrize(("split", "count"), [("train_aug", 45), ("val", 29)])
def test_real_sample(real_sample, voc20_coco60, tmp_path, split, count):
    folder = voc.VocFolder(real_sample / "VOCdevkit/VOC2012", voc20_coco60)
    summary = voc.build(folder, split, tmp_path)
    assert (summary["images_kept"], summary["masks"]) == (count, count)
    from_masks = voc.VocFolder(folder.root, voc20_coco60, labels_from="masks")
    voc.build(from_masks, split, tmp_path, output_split="masks")
    pairs = [Split.load(tmp_path, name).infos for name in (split, "masks")]
    differing = sum(a.labels != b.labels for a, b in zip(*pairs, strict=True))
    assert differing == (3 if split == "train_aug" else 0)
