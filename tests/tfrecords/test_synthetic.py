"""The synthetic set: real layouts, exclusive domains, the same files for the same options."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tfrecords import coco, synthetic, synthetic_folders, synthetic_scenes
from tfrecords.synthetic import Options
from tfrecords.synthetic_scenes import CATEGORIES, SOURCE, TARGET
from tfseg.data.examples import read_example
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Options(seed=3, source_train=6, target_train=3, target_val=2, image_size=48)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_coco(folder):
    return json.loads((folder / "coco/annotations/instances_train.json").read_text())


def test_same_options_give_the_same_files_on_any_number_of_workers(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, workers in zip(folders, (1, 2), strict=True):
        assert synthetic.build(folder, TINY, workers)
    assert files(folders[0]) == files(folders[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_longer_set_starts_with_the_shorter_one(tmp_path):
    synthetic.build(tmp_path / "short", TINY)
    synthetic.build(tmp_path / "long", Options(3, 8, 4, 2, 48))
    short, long = files(tmp_path / "short"), files(tmp_path / "long")
    images = [name for name in short if name.endswith((".jpg", ".png", ".xml"))]
    assert images and all(short[name] == long[name] for name in images)


def test_split_test_has_its_own_images_and_changes_no_other(tmp_path):
    synthetic.build(tmp_path / "without", TINY)
    synthetic.build(tmp_path / "with", dataclasses.replace(TINY, target_test=2))
    without, both = files(tmp_path / "without"), files(tmp_path / "with")
    changed = {name for name in both if both[name] != without.get(name)}
    listing = "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt"
    assert both[listing].split() == [b"test_000001", b"test_000002"] and without[listing] == b""
    images = {f"VOCdevkit/VOC2012/JPEGImages/test_00000{i}.jpg" for i in (1, 2)}
    assert {name for name in changed if name.endswith(".jpg")} == images
    assert all(name in (listing, "synthetic.json") or "/test_00000" in name for name in changed)
    assert not {both[name] for name in images} & {v for k, v in both.items() if k not in images}


def test_another_seed_gives_other_images(tmp_path):
    synthetic.build(tmp_path / "a", TINY)
    synthetic.build(tmp_path / "b", Options(4, 6, 3, 2, 48))
    name = "coco/train/000000000001.jpg"
    assert files(tmp_path / "a")[name] != files(tmp_path / "b")[name]


def test_the_set_as_folders(tmp_path):
    drawn = Options(3, source_train=30, target_train=90, target_val=1, image_size=48, target_test=12)
    synthetic.build(tmp_path / "set", drawn)
    folder = synthetic_folders.arrange(tmp_path / "set")
    before = files(folder)
    assert synthetic_folders.arrange(tmp_path / "set") == folder and files(folder) == before
    label_map = LabelMap.load(tmp_path / "set/labels.json")
    for path in folder.glob("*photographs/*/*.jpg"):
        xml = tmp_path / f"set/VOCdevkit/VOC2012/Annotations/{path.stem}.xml"
        assert {entry.text for entry in ElementTree.parse(xml).iterfind("object/name")} == {path.parent.name}
    known = {path.parent.name for path in folder.glob("photographs/*/*.jpg")}
    assert known == set(TARGET[:5])
    assert [path.name for path in (folder / "new_photographs").iterdir()] == TARGET[5:6]
    # Masks of things are those of the COCO builder, under other values.
    source = tmp_path / "set/coco"
    annotations = source / "annotations/instances_train.json"
    coco.build(annotations, source / "train", label_map, coco.Rules(), "s", tmp_path)
    split = Split.load(tmp_path, "s")
    compared = 0
    for index in range(len(split)):
        example = read_example(split, index)
        file = folder / f"things/masks/{int(example.name):012d}.png"
        if file.exists():
            mask, ids = np.array(Image.open(file)), example.mask
            assert set(np.unique(mask)) <= set(range(13))
            np.testing.assert_array_equal(np.where(mask > 0, mask + 8, 0)[ids != 255], ids[ids != 255])
            compared += 1
    assert compared == len(list((folder / "things/images").iterdir())) > 20


def test_a_finished_set_is_left_alone_and_another_is_not_overwritten(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    assert synthetic.build(folder, TINY)
    before = files(folder)
    assert not synthetic.build(folder, TINY)
    with pytest.raises(InputError, match=r"holds another set, of the options .*'seed': 3"):
        synthetic.build(folder, Options(4, 6, 3, 2, 48))
    manifest = json.loads((folder / "synthetic.json").read_text())
    (folder / "synthetic.json").write_text(json.dumps({**manifest, "drawing": "older"}))
    with pytest.raises(InputError, match="another version of the program"):
        synthetic.build(folder, TINY)
    (folder / "synthetic.json").unlink()
    with pytest.raises(InputError, match="not a synthetic set"):
        synthetic.build(folder, TINY)
    before.pop("synthetic.json")
    assert files(folder) == before


def test_a_set_that_was_not_finished_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_coco", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic.build(tmp_path / "set", TINY)
    assert list(tmp_path.iterdir()) == []


def test_domains_share_no_category_but_all_textures():
    assert not set(SOURCE) & set(TARGET)
    assert (len(SOURCE), len(TARGET)) == (12, 8)
    for names in (SOURCE, TARGET):
        assert {CATEGORIES[name].texture for name in names} == set(synthetic_scenes.TEXTURES)
    looks = {(category.texture, category.hue) for category in CATEGORIES.values()}
    assert len(looks) == 20
    labels = synthetic.label_map()
    assert LabelMap.from_dict(labels.to_dict()) == labels
    assert labels.ids("target") == tuple(range(1, 9))


def test_coco_part_opens_with_cocos_own_tool(synthetic_dir, capsys):
    tool = COCO(str(synthetic_dir / "coco/annotations/instances_train.json"))
    assert len(tool.getImgIds()) == 24
    for annotation in tool.loadAnns(tool.getAnnIds()):
        area = tool.annToMask(annotation).sum()
        assert area == pytest.approx(annotation["area"], rel=0.1)


def test_coco_part_has_every_form_of_annotation_and_the_special_images(synthetic_dir):
    content = read_coco(synthetic_dir)
    forms = Counter()
    for annotation in content["annotations"]:
        segmentation = annotation["segmentation"]
        forms[type(segmentation if isinstance(segmentation, list) else segmentation["counts"])] += 1
        forms["list"] += isinstance(segmentation, list)
    assert forms["list"] and forms[str] and forms[list] > forms["list"]
    assert any(annotation["iscrowd"] for annotation in content["annotations"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert sorted(names.values()) == sorted([*SOURCE, *TARGET])
    present = {names[annotation["category_id"]] for annotation in content["annotations"]}
    assert present & set(TARGET)
    annotated = {annotation["image_id"] for annotation in content["annotations"]}
    assert len(annotated) == 23


def test_polygons_run_along_the_drawn_pixels():
    compared = 0
    for i in range(20):
        rng = np.random.default_rng([5, i])
        scene = synthetic_scenes.draw_scene(rng, 96, synthetic_scenes.choose_names(rng, SOURCE + TARGET))
        height, width = scene.image.shape[:2]
        for scene_object in scene.objects:
            if scene_object.polygons:
                polygons = [polygon.ravel().tolist() for polygon in scene_object.polygons]
                rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
                found = coco_mask.decode(rle).astype(bool)
                common = found & scene_object.mask
                assert common.sum() > 0.88 * (found | scene_object.mask).sum(), scene_object.category
                compared += 1
    assert compared >= 10


def test_masks_lie_on_saturated_pixels():
    # Objects are colourful, backgrounds muted: a shifted or wrong mask would show.
    inside, outside = [], []
    for i in range(12):
        rng = np.random.default_rng([5, i])
        scene = synthetic_scenes.draw_scene(rng, 96, ["star", "nut"])
        pixels = scene.image.astype(np.int64)
        saturation = (pixels.max(axis=-1) - pixels.min(axis=-1)) / np.maximum(pixels.max(axis=-1), 1)
        mask = np.logical_or.reduce([scene_object.mask for scene_object in scene.objects])
        inside.append(saturation[mask].mean())
        outside.append(saturation[~mask].mean())
    assert np.mean(inside) > 2 * np.mean(outside)


def test_images_differ_in_size_and_objects_are_large_and_seen():
    shapes, counts = set(), Counter()
    for i in range(30):
        rng = np.random.default_rng([9, i])
        scene = synthetic_scenes.draw_scene(rng, 96, synthetic_scenes.choose_names(rng, SOURCE))
        shapes.add(scene.image.shape)
        counts[len(scene.objects)] += 1
        for scene_object in scene.objects:
            assert scene_object.mask.shape == scene.image.shape[:2]
            assert scene_object.mask.sum() > 0.01 * scene_object.mask.size
        assert sum(scene_object.mask.astype(int) for scene_object in scene.objects).max() <= 1
    assert set(counts) == {1, 2, 3}
    assert len(shapes) > 20
    assert {side for shape in shapes for side in shape[:2]} <= set(range(88, 113))


def test_voc_part_is_palette_masks_xml_and_lists(synthetic_dir):
    root = synthetic_dir / "VOCdevkit/VOC2012"
    for split, count in (("train", 16), ("val", 8)):
        stems = (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        assert len(stems) == count
        for stem in stems:
            image = Image.open(root / f"JPEGImages/{stem}.jpg")
            mask = Image.open(root / f"SegmentationClassAug/{stem}.png")
            assert mask.mode == "P" and mask.size == image.size
            values = set(np.unique(np.array(mask)).tolist())
            assert 255 in values and values - {0, 255}
            names = {name.text for name in ElementTree.parse(root / f"Annotations/{stem}.xml").iter("name")}
            assert values - {0, 255} <= {TARGET.index(name) + 1 for name in names}


def test_border_of_255_is_one_pixel_wide():
    mask = synthetic._voc_mask(
        synthetic_scenes.Scene(
            np.zeros((12, 12, 3), np.uint8),
            (synthetic_scenes.SceneObject("nut", np.pad(np.ones((6, 6), bool), 3), None),),
        )
    )
    expected = np.pad(np.full((6, 6), 1, np.uint8), 3)
    expected[2, 3:9] = expected[8, 3:9] = expected[3:9, 2] = expected[3:9, 8] = 255
    np.testing.assert_array_equal(mask, expected)


def test_exclusion_has_work_to_do(synthetic_records):
    summary = Split.load(synthetic_records, "source_train").summary
    assert summary["images_dropped"] == {"has a target category": 1, "no annotation": 1}
    assert set(summary["pairs_per_class"]) == set(SOURCE)


def test_shapes_are_not_convex():
    # The share of the box's inscribed ellipse; attention of a few cells cannot follow what is left out.
    rng = np.random.default_rng(0)
    for name in [*SOURCE, *TARGET]:
        outline = synthetic_scenes._pose(rng, name, 60, (96, 96))
        mask = synthetic_scenes._coverage(outline, 96, 96) >= 0.5
        rows, columns = np.nonzero(mask)
        points = np.stack([columns, rows], axis=1)
        hull = _hull_area(points)
        assert mask.sum() < 0.95 * hull, name


def _hull_area(points):
    # Area within the supporting lines of many directions.
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    support = (points @ normals.T).max(axis=0) + 0.5
    grid = np.stack(np.meshgrid(np.arange(96), np.arange(96)), axis=-1).reshape(-1, 2)
    return int((grid @ normals.T <= support).all(axis=1).sum())


def test_ctrl_c_ends_the_command_in_one_line_and_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tfrecords.build_synthetic",
            f"--output_dir={tmp_path / 'set'}",
            "--workers=2",
        ],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".set.building/set/coco/train/*.jpg")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
