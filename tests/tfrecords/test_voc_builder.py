"""Records from VOC folders: labels, masks, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from tfrecords import voc
from tfrecords.voc_files import read_objects
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
        (
            write_text("Annotations/a.xml", '<?xml version="1.0" encoding="none"?><a/>'),
            r"a\.xml: declares an enc",
        ),
        (write_text("Annotations/a.xml", xml("bird")), r"a\.xml: object 1: the class 'bird' is not listed"),
        (write_text("Annotations/a.xml", xml("cat", "")), r"a\.xml: object 2 has no name"),
        (write_text("Annotations/a.xml", xml("cup")), r"a\.xml: .*'cup' is of the source domain"),
        (write_text("Annotations/a.xml", "<annotation><object/></annotation>"), "object 1 has no name"),
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


# What people's tools write.


@pytest.mark.parametrize(
    "encoding", ["gb2312", "GBK", "gb18030", "Big5", "Shift_JIS", "EUC-JP", "EUC-KR", "UTF-16"]
)
def test_annotations_in_any_declared_encoding(root, encoding):
    declared = f'<?xml version="1.0" encoding="{encoding}"?>\n'
    text = declared + f"<annotation><source>\u4e2d</source>{xml('dog')[len('<annotation>') :]}"
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    build(root)
    assert labels_of(root)["a"] == (2,)


@pytest.mark.parametrize(
    "start, declared, encoding",
    [
        ("", "utf-16", "utf-8"),
        ("", "utf8", "utf-8"),
        ("", "x-gbk", "gbk"),
        ("", "windows-31j", "cp932"),
        ("\ufeff", "gb2312", "utf-8"),
        ("\ufeff", "utf-8", "utf-16-le"),
        ("", "utf-8", "utf-16-be"),
        ("\n \n", "utf-8", "utf-8"),
        ("\n", "Shift_JIS", "cp932"),
    ],
)
def test_annotations_as_tools_misdeclare_them(root, start, declared, encoding):
    text = f'{start}<?xml version="1.0" encoding="{declared}"?>\n' + xml("cat").replace("cat", "犬")
    path = root / "Annotations/a.xml"
    path.write_bytes(text.encode(encoding))
    assert read_objects(path) == ["犬"]


def test_an_encoding_that_is_declared_falsely_is_named(root):
    declared = b'<?xml version="1.0" encoding="gb2312"?><annotation><source>\xff\xff</source></annotation>'
    (root / "Annotations/a.xml").write_bytes(declared)
    with pytest.raises(InputError, match=r"a\.xml: is not XML of the encoding that it declares \('gb18030'"):
        build(root)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_with_byte_order_marks(root, encoding):
    (root / LISTING).write_text("b\r\na\r\n", encoding=encoding)
    assert build(root)["images_kept"] == 2


@pytest.mark.parametrize("stem", ["my cat", "a\u202fb", "\u5199\u771f\u30001", "\u3000a", "a.jpg"])
def test_names_with_spaces_in_lists(root, stem):
    (root / LISTING).write_text(f"{stem}\n")
    with pytest.raises(InputError, match=r"line 1: the name of one image|the image is missing"):
        build(root)
    (root / "JPEGImages/a.jpg").rename(root / f"JPEGImages/{stem}.jpg")
    (root / "Annotations/a.xml").rename(root / f"Annotations/{stem}.xml")
    build(root)
    assert labels_of(root) == {stem: (1, 2)}


def test_all_bad_annotations_are_told_at_once(root):
    (root / "Annotations/a.xml").write_text("<annotation>")
    (root / "Annotations/b.xml").unlink()
    for path in (root / "JPEGImages").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"all\.txt: 2 malformed entries \(.*b\.xml: .*a\.xml: ") as caught:
        build(root)
    assert "annotation is not XML: 1" in str(caught.value)


def test_bad_annotations_and_images_are_left_out_by_choice(root):
    (root / "Annotations/a.xml").write_text("<annotation>")
    (root / "JPEGImages/b.png").write_bytes(b"no image")
    summary = build(root, malformed="skip")
    assert labels_of(root) == {"c": ()}
    assert summary["images_seen"] == 3
    assert summary["images_dropped"] == {"malformed": 1, "no record could be made": 1}
    assert summary["notes"] == {"malformed, left out: annotation is not XML": 1}


def test_all_unlisted_classes_are_named_or_left_out(root):
    (root / "Annotations/a.xml").write_text(xml("bird", "dog", "car"))
    (root / "Annotations/c.xml").write_text(xml("car"))
    with pytest.raises(
        InputError, match=r"the class 'bird' .*--unlisted=ignore .*2 classes are not: 'bird', 'car'"
    ):
        build(root)
    for unlisted in ("ignore", "background"):
        build(root, unlisted=unlisted)
        assert labels_of(root) == {"b": (1,), "a": (2,), "c": ()}
    (root / "Annotations/a.xml").write_text(xml("cup"))
    with pytest.raises(InputError, match="'cup' is of the source domain"):
        build(root, unlisted="ignore")


@pytest.fixture
def vocs_own(root):
    """Masks in VOC's numbering: cat is 8, dog 12, bird 3."""
    save_indexed_png(root / "Masks/a.png", mask(0, 8, 12, 3, 255))
    save_indexed_png(root / "Masks/b.png", mask(0, 8))
    (root / "ImageSets/Segmentation/two.txt").write_text("a\nb\n")
    return root


def stored_mask(root, number):
    data = parse(Split.load(root.parent / "records", "val").read(number))["mask"].numpy()
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(("unlisted", "bird"), [("ignore", 255), ("background", 0)])
def test_vocs_own_masks_are_mapped_by_class_name(vocs_own, unlisted, bird):
    summary = build(vocs_own, unlisted=unlisted)
    np.testing.assert_array_equal(stored_mask(vocs_own, 1), mask(0, 1, 2, bird, 255))
    assert summary["options"]["unlisted"] == unlisted
    build(vocs_own, "two", unlisted=unlisted, labels_from="masks")
    assert labels_of(vocs_own) == {"a": (1, 2), "b": (1,)}


def test_vocs_own_masks_are_asked_for_by_name(vocs_own):
    with pytest.raises(
        InputError, match=r"b\.png: the mask has the value 8; .*--mask_ids=voc takes VOC's own"
    ):
        build(vocs_own)
    with pytest.raises(InputError, match=r"a\.png: the mask has the value 3; .*--unlisted=ignore or"):
        build(vocs_own, mask_ids="voc")
    save_indexed_png(vocs_own / "Masks/a.png", mask(0, 1, 2))
    save_indexed_png(vocs_own / "Masks/b.png", mask(0, 2))
    build(vocs_own, unlisted="ignore", mask_ids="label_map")
    np.testing.assert_array_equal(stored_mask(vocs_own, 1), mask(0, 1, 2))


def test_mask_values_are_given(root):
    Image.fromarray(mask(0, 255)).save(root / "Masks/a.png")
    with pytest.raises(InputError, match=r"a\.png: the mask has no values but 0 and 255"):
        build(root)
    Image.fromarray(mask(0, 255, 255)).save(root / "Masks/b.png")
    build(root, mask_values={0: 0, 255: 2})
    np.testing.assert_array_equal(stored_mask(root, 0), mask(0, 2, 2))
