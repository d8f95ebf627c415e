"""Records from folders of images: three ways to say labels, and a split by file."""

import io

import numpy as np
import pytest
from PIL import Image

from tfrecords import folder, label_map
from tfrecords.build_folder import main
from tfrecords.masks import MaskRules, parse_mask_values
from tfseg.data.labels import Label, LabelMap
from tfseg.data.records import Split, parse
from tfseg.errors import InputError

LABELS = LabelMap(
    "pets", (Label(1, "cats", "target", ("cat",)), Label(2, "dogs", "target"), Label(3, "cups", "source"))
)
SIZE = (6, 8)


def save(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def save_mask(path, *values):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[0, : len(values)] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def classes(tmp_path):
    """Two class folders, in which `001` is there twice, and the files that macOS and Windows leave."""
    root = tmp_path / "photographs"
    for seed, name in enumerate(("cats/001.jpg", "cats/deep/2.png", "dogs/001.jpg", "dogs/003.JPEG")):
        save(root / name, seed)
    for name in ("cats/._001.jpg", ".DS_Store", "__MACOSX/cats/001.jpg", "dogs/Thumbs.db", ".git/a.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no image")
    return root


def build(root, split="all", how=None, **options):
    made = folder.ImageFolder(root, LABELS, **(how or {}))
    return folder.build(made, root.parent / "records", split, **options)


def labels_of(root, split="all"):
    return {info.image_id: info.labels for info in Split.load(root.parent / "records", split).infos}


def test_class_folders_name_the_labels(classes):
    (summary,) = build(classes)
    assert labels_of(classes) == {"cats/001": (1,), "cats/deep/2": (1,), "dogs/001": (2,), "dogs/003": (2,)}
    assert (summary["images_seen"], summary["pairs"], summary["masks"]) == (4, 4, 0)
    record = parse(Split.load(classes.parent / "records", "all").read(0))
    assert record["filename"].numpy() == b"cats/001.jpg"
    assert record["image"].numpy() == (classes / "cats/001.jpg").read_bytes()


def test_names_that_differ_in_their_suffix_keep_it(classes):
    save(classes / "cats/001.png", 9)
    build(classes)
    assert {"cats/001.jpg", "cats/001.png", "dogs/001"} <= set(labels_of(classes))


def test_class_folders_that_are_no_labels(classes):
    save(classes / "birds/1.jpg")
    save(classes / "fish/1.jpg")
    with pytest.raises(
        InputError, match=r"birds: the label 'birds' is not listed.*2 labels are not: 'birds', 'fish'"
    ):
        build(classes)
    (summary,) = build(classes, how={"unlisted": "ignore"})
    assert summary["images_dropped"] == {"of unlisted classes alone": 2}
    (classes / "birds").rename(classes / "cups")
    with pytest.raises(InputError, match="'cups' is of the source domain"):
        build(classes, how={"unlisted": "ignore"})


def test_images_in_no_class_folder(classes):
    save(classes / "1.jpg")
    with pytest.raises(InputError, match=r"photographs/1\.jpg: lies in no class folder; --malformed=skip"):
        build(classes)
    (summary,) = build(classes, how={"malformed": "skip"})
    assert summary["notes"] == {"malformed, left out: image in no class folder": 1}
    with pytest.raises(InputError, match="has no class folders such as"):
        build(classes / "cats/deep")
    (classes / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no image"):
        build(classes / "empty")


def test_names_that_are_no_utf8(classes):
    name = classes / "cats" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    name.write_bytes((classes / "cats/001.jpg").read_bytes())
    with pytest.raises(InputError, match=r"caf\\udce9\.jpg': the name is not UTF-8"):
        build(classes)
    assert build(classes, how={"malformed": "skip"})[0]["images_kept"] == 4


def write_csv(root, text, encoding="utf-8"):
    path = root.parent / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return {"csv_file": path}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", ["", "file,labels\r\n", "Filename,label\r\n"])
def test_a_csv_file_names_the_labels(classes, header, encoding):
    rows = (
        "cats/001.jpg,cat;dogs",
        "",
        '"dogs/001.jpg", dogs ',
        "cats\\deep\\2.png,",
        "dogs/001.jpg,cats",
        "",
    )
    text = header + "\r\n".join(rows)
    build(classes, how=write_csv(classes, text, encoding))
    assert labels_of(classes) == {"cats/001": (1, 2), "cats/deep/2": (), "dogs/001": (1, 2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("file,label\n", "lists no image"),
        ("cats/001.jpg\n", r"line 1: file,label1;label2 is wanted, found 'cats/001\.jpg'"),
        ("cats/001.jpg;cats\n", "with a comma behind the file is wanted"),
        ("cats/001.jpg\tcats\n", "with a comma behind the file is wanted"),
        ("a.jpg,cats\ncats/001.jpg,cats\n", r"line 1: .*photographs/a\.jpg: the image is missing"),
        ("001.jpg,cats\n", r"--images=.*photographs/cats would fit"),
        ("photographs/cats/001.jpg,cats\n", r"the image is missing; --images=.* would fit"),
        ("cats/001,cats\n", r"photographs/cats/001\.jpg is there: is that"),
        ("cats/001.JPG,cats\n", r"photographs/cats/001\.jpg is there: is that"),
        ("cats/001.jpg,birds\n", r"line 1: the label 'birds' is not listed"),
        ("cats/001.jpg,cups\n", "'cups' is of the source domain"),
        ('"cats/001.jpg,cats\n', r"line 1|the image is missing"),
        ("a.jpg,cats\nb.jpg,cats\n", "2 malformed entries"),
    ],
)
def test_bad_csv_files(classes, text, message):
    with pytest.raises(InputError, match=message):
        build(classes, how=write_csv(classes, text))


def test_csv_files_that_are_no_text(classes):
    how = write_csv(classes, "cats/001.jpg,caf\u00e9\n", "latin-1")
    with pytest.raises(InputError, match=r"labels\.csv: is not UTF-8 text"):
        build(classes, how=how)


@pytest.fixture
def masked(tmp_path):
    """Three images, each with a mask of the same relative path."""
    for number, values in ((1, (1, 2)), (2, (2, 255)), (3, (255, 1))):
        save(tmp_path / f"images/a/{number}.jpg", number)
        save_mask(tmp_path / f"masks/a/{number}.png", *values)
    return tmp_path / "images"


def test_masks_tell_the_labels(masked):
    (summary,) = build(masked, how={"masks": masked.parent / "masks"})
    assert labels_of(masked) == {"a/1": (1, 2), "a/2": (2,), "a/3": (1,)}
    assert summary["masks"] == 3


def test_values_of_masks_are_given(masked):
    values = parse_mask_values("1:dogs,2:cats", LABELS, "target")
    how = {"masks": masked.parent / "masks", "mask_rules": MaskRules((1, 2), values)}
    build(masked, how=how)
    assert labels_of(masked) == {"a/1": (1, 2), "a/2": (1,), "a/3": (2,)}
    stored = parse(Split.load(masked.parent / "records", "all").read(0))["mask"].numpy()
    assert np.array(Image.open(io.BytesIO(stored)))[0, :3].tolist() == [2, 1, 0]


def test_missing_masks(masked):
    (masked.parent / "masks/a/2.png").unlink()
    how = {"masks": masked.parent / "masks"}
    with pytest.raises(InputError, match=r"masks/a/2\.png: the mask of .*a/2\.jpg is missing"):
        build(masked, how=how)
    (summary,) = build(masked, how={**how, "malformed": "skip"})
    assert (summary["images_kept"], summary["images_dropped"]) == (2, {"malformed": 1})
    listed = write_csv(masked, "a/1.jpg,cats\na/2.jpg,cats\n")
    (summary,) = build(masked, how=how | listed)
    assert (summary["images_kept"], summary["masks"]) == (2, 1)


def test_a_split_by_file(tmp_path):
    root = tmp_path / "photographs"
    for number in range(40):
        # Each photograph lies in two folders, as people copy those that show both.
        save(root / f"cats/{number:03}.png", number)
        save(root / f"dogs/{number + 500}.png", number)
    options = {"split": "train", "val_split": "val", "val_fraction": 0.25}
    train, val = build(root, **options)
    assert (train["images_kept"], val["images_kept"]) == (60, 20)

    def contents(split):
        found = Split.load(root.parent / "records", split)
        return {parse(found.read(i))["image"].numpy() for i in range(len(found))}

    first = contents("val")
    assert not first & contents("train")
    build(root, **options, workers=2)
    assert contents("val") == first
    build(root, **options, split_seed=1)
    assert contents("val") != first
    with pytest.raises(InputError, match="--val_split=train: must differ"):
        build(root, "train", val_split="train", val_fraction=0.5)


def test_two_files_are_divided_and_one_is_not(tmp_path):
    root = tmp_path / "photographs"
    save(root / "cats/1.png", 1)
    for fraction in (0.01, 0.99):
        with pytest.raises(InputError, match="needs two different images, there is 1"):
            build(root, val_split="val", val_fraction=fraction)
    save(root / "cats/2.png", 2)
    for fraction in (0.01, 0.99):
        assert [s["images_kept"] for s in build(root, val_split="val", val_fraction=fraction)] == [1, 1]


def command(root, *arguments):
    path = root.parent / "pets.json"
    path.write_text(label_map.text(LABELS), encoding="utf-8")
    fixed = (f"--images={root}", f"--label_map={path}", f"--output_dir={root.parent / 'out'}", "--workers=1")
    return main([*fixed, *map(str, arguments)])


def test_command(classes, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(classes / "cats/001.jpg", exif=exif)
    assert command(classes, "--val_fraction=0.25") == 0
    printed = capsys.readouterr().out
    assert "split target_train (target domain)" in printed and "split target_val (target domain)" in printed
    splits = [Split.load(classes.parent / "out", f"target_{name}") for name in ("train", "val")]
    (turned,) = [info for split in splits for info in split.infos if info.image_id == "cats/001"]
    assert (turned.height, turned.width) == SIZE[::-1]
    assert "EXIF orientation applied" in printed


def test_command_with_masks(masked, capsys):
    masks = f"--masks={masked.parent / 'masks'}"
    assert command(masked, masks, "--mask_values=1:dogs,2:cats", "--split=mine") == 0
    assert Split.load(masked.parent / "out", "mine").summary["masks"] == 3
    assert command(masked, "--mask_values=1:dogs") == 2
    assert "need --masks" in capsys.readouterr().err


# Label maps of what people have.


def make_map(tmp_path, source, domain, *more):
    output = tmp_path / "labels.json"
    assert label_map.main([f"--from={source}", f"--domain={domain}", f"--output={output}", *more]) == 0
    return LabelMap.load(output)


def test_a_label_map_in_two_calls(classes, tmp_path, capsys):
    coco = tmp_path / "coco.json"
    coco.write_text(
        '{"categories": [{"id": 9, "name": "pen"}, {"id": 0, "name": "all"}, {"id": 3, "name": "cup"}, '
        '{"id": 4, "name": "cats"}], "annotations": [{"category_id": 9}, {"category_id": 3}, '
        '{"category_id": 4.0}], "images": []}'
    )
    first = make_map(tmp_path, classes, "target")
    assert [(label.id, label.name, label.domain) for label in first.labels] == [
        (1, "cats", "target"),
        (2, "dogs", "target"),
    ]
    both = make_map(tmp_path, coco, "source", f"--label_map={tmp_path / 'labels.json'}", "--name=mine")
    assert both.labels[:2] == first.labels
    assert [(label.id, label.name) for label in both.labels[2:]] == [(3, "cup"), (4, "pen")]
    assert both.name == "mine"
    assert "cats: in the map already, as target" in capsys.readouterr().out


def test_label_maps_of_csv_files_and_voc_folders(classes, tmp_path):
    table = write_csv(classes, "file,labels\na.jpg,dogs;birds\nb.jpg,cats\n")["csv_file"]
    assert make_map(tmp_path, table, "target").names("target") == ("birds", "cats", "dogs")
    voc = tmp_path / "voc"
    (voc / "Annotations").mkdir(parents=True)
    (voc / "Annotations/a.xml").write_text(
        "<annotation><object><name>dog</name></object><object><name>ant</name></object></annotation>"
    )
    (voc / "Annotations/._a.xml").write_bytes(b"\0")
    assert make_map(tmp_path, voc, "source").names("source") == ("ant", "dog")


def test_a_folder_too_many(classes, tmp_path, capsys):
    """As archives unpack: `pets/photographs/cats/001.jpg`."""
    (tmp_path / "pets").mkdir()
    outer, inner = tmp_path / "pets", tmp_path / "pets/photographs"
    classes.rename(inner)
    with pytest.raises(InputError, match=f"'photographs' is not listed .*--images={inner} would fit"):
        build(outer)
    output = tmp_path / "labels.json"
    assert label_map.main([f"--from={outer}", "--domain=target", f"--output={output}"]) == 2
    assert f"--from={inner} has cats, dogs" in capsys.readouterr().err
    for path in (inner / "dogs").iterdir():
        path.unlink()
    # A category of one's own with folders inside is none too many.
    assert make_map(tmp_path, inner, "target").names("target") == ("cats",)


def test_masks_in_another_folder(masked):
    masks = masked.parent / "masks"
    masks.rename(masked.parent / "inner")
    masks.mkdir()
    (masked.parent / "inner").rename(masks / "inner")
    with pytest.raises(InputError, match=rf"a/1\.jpg is missing; --masks={masks}/inner would fit"):
        build(masked, how={"masks": masks})


def test_names_of_a_label_map(tmp_path, capsys):
    output = tmp_path / "labels.json"
    words = [f"--output={output}", "--domain=source"]
    assert label_map.main([*words, "--names=disk, tri,disk"]) == 0
    assert LabelMap.load(output).names("source") == ("disk", "tri")
    for wrong in ([], ["--names=disk", f"--from={tmp_path}"]):
        assert label_map.main([*words, *wrong]) == 2
        assert "--from=FILE|FOLDER or --names=NAME,NAME" in capsys.readouterr().err


def test_what_has_no_category(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"categories": []}')
    (tmp_path / "b.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.json", "has no category"),
        ("b.json", "is not a COCO"),
        ("empty", "has no category"),
    ):
        arguments = [f"--from={tmp_path / name}", "--domain=target", f"--output={tmp_path / 'out.json'}"]
        assert label_map.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
