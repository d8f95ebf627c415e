"""The embedded two-domain dataset, written in the layouts of COCO and VOC.

The source domain is a COCO folder (masks as polygons, uncompressed and compressed RLE, crowd
regions, images without annotations, images with categories of the target domain), the target domain
a VOC folder with the splits train, val and test. The same options give the same files on any number of
workers.
"""

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tfseg.data.labels import IGNORE_ID, Label, LabelMap
from tfseg.data.voc_colors import palette
from tfseg.errors import InputError
from tfseg.files import sync_directory
from tfseg.folders import workspace

from . import synthetic_scenes, synthetic_shapes
from .pool import run_tasks
from .synthetic_scenes import SOURCE, TARGET, Scene, SceneObject

MANIFEST = "synthetic.json"
CHUNK = 50
"""Images that a worker draws at a time."""

# Every so many images of the source domain one is special, from the given one on.
WITHOUT_OBJECTS = (7, 40)
WITH_TARGET_CATEGORY = (13, 20)
WITH_CROWD = (5, 16)

_VOC = Path("VOCdevkit/VOC2012")
_COCO_IMAGES = Path("coco/train")
_COCO_JSON = Path("coco/annotations/instances_train.json")


@dataclass(frozen=True)
class Options:
    """What shapes the set.

    Attributes:
        seed: of everything drawn.
        source_train: images in the COCO layout.
        target_train: images of the VOC split train.
        target_val: images of the VOC split val.
        image_size: nominal side of the images in pixels.
        target_test: images of the VOC split test; more or fewer change no other split.
    """

    seed: int
    source_train: int
    target_train: int
    target_val: int
    image_size: int
    target_test: int = 0


@dataclass(frozen=True)
class _Chunk:
    folder: Path
    split: str
    first: int
    end: int
    options: Options


def label_map() -> LabelMap:
    """The label map of the set: target ids 1..8, source ids 9..20."""
    labels = [Label(i, name, "target") for i, name in enumerate(TARGET, start=1)]
    labels += [Label(i, name, "source") for i, name in enumerate(SOURCE, start=len(TARGET) + 1)]
    return LabelMap("synthetic", tuple(labels))


def build(output_dir: str | os.PathLike[str], options: Options, workers: int = 1) -> bool:
    """Draws the set into `output_dir`, whole or not at all.

    Args:
        output_dir: a folder that is absent, empty, or holds the same set.
        options: what to draw.
        workers: number of processes.

    Returns:
        False if the same set was there already.

    Raises:
        InputError: the folder holds something else, or another process is building there.
    """
    output_dir = Path(output_dir)
    manifest = {"options": asdict(options), "drawing": _drawing_digest()}
    if _holds(output_dir, manifest):
        return False
    with workspace(output_dir.with_name(f".{output_dir.name}.building")) as building:
        draft = building / "set"
        _draw_all(draft, options, workers)
        _write_json(draft / "labels.json", label_map().to_dict())
        _write_json(draft / MANIFEST, manifest)
        os.replace(draft, output_dir)  # replaces nothing but an empty folder
    sync_directory(output_dir.parent)
    return True


def _drawing_digest() -> str:
    # Changed drawing code or constants make another set of the same options.
    modules = (synthetic_shapes, synthetic_scenes)
    sources = b"".join(Path(module.__file__).read_bytes() for module in modules)
    return hashlib.sha256(sources + Path(__file__).read_bytes()).hexdigest()[:16]


def _holds(output_dir: Path, manifest: dict[str, Any]) -> bool:
    if not output_dir.exists():
        return False
    if not output_dir.is_dir():
        raise InputError(f"--output_dir={output_dir}: is a file; a folder is needed")
    if not any(output_dir.iterdir()):
        return False
    try:
        found = json.loads((output_dir / MANIFEST).read_text())
    except (OSError, ValueError):
        found = {}
    if found == manifest:
        return True
    if isinstance(found, dict) and found.get("options") == manifest["options"]:
        what = "a set of the same options drawn by another version of the program"
    elif isinstance(found, dict) and "options" in found:
        what = f"another set, of the options {found['options']}"
    else:
        what = "files that are not a synthetic set"
    raise InputError(f"--output_dir={output_dir}: holds {what}; remove it or name another folder")


def _draw_all(folder: Path, options: Options, workers: int) -> None:
    for name in ("JPEGImages", "Annotations", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / _VOC / name).mkdir(parents=True)
    (folder / _COCO_IMAGES).mkdir(parents=True)
    counts = {
        "source_train": options.source_train,
        "target_train": options.target_train,
        "target_val": options.target_val,
        "target_test": options.target_test,
    }
    chunks = [
        _Chunk(folder, split, first, min(first + CHUNK, count), options)
        for split, count in counts.items()
        for first in range(0, count, CHUNK)
    ]
    sizes = [chunk.end - chunk.first for chunk in chunks]
    drawn = list(run_tasks(_draw_chunk, chunks, workers, "drawing", " images", sizes))
    source = [
        entry
        for chunk, entries in zip(chunks, drawn, strict=True)
        for entry in entries
        if chunk.split == "source_train"
    ]
    _write_json(folder / _COCO_JSON, _coco(source))
    for split in ("train", "val", "test"):
        names = [_voc_stem(f"target_{split}", i) for i in range(counts[f"target_{split}"])]
        listing = folder / _VOC / "ImageSets/Segmentation" / f"{split}.txt"
        listing.write_text("".join(f"{name}\n" for name in names))


def _draw_chunk(chunk: _Chunk) -> list[dict[str, Any]]:
    draw = _draw_source if chunk.split == "source_train" else _draw_target
    return [draw(chunk, index) for index in range(chunk.first, chunk.end)]


def _rng(chunk: _Chunk, index: int) -> np.random.Generator:
    stream = ("source_train", "target_train", "target_val", "target_test").index(chunk.split)
    return np.random.default_rng([chunk.options.seed, stream, index])


def _is_special(index: int, when: tuple[int, int]) -> bool:
    first, step = when
    return index % step == first


def _draw_source(chunk: _Chunk, index: int) -> dict[str, Any]:
    rng = _rng(chunk, index)
    names = synthetic_scenes.choose_names(rng, SOURCE)
    crowd_of = None
    if _is_special(index, WITHOUT_OBJECTS):
        names = []
    elif _is_special(index, WITH_TARGET_CATEGORY):
        names[-1] = TARGET[rng.integers(len(TARGET))]
    elif _is_special(index, WITH_CROWD):
        crowd_of = SOURCE[rng.integers(len(SOURCE))]
    scene = synthetic_scenes.draw_scene(rng, chunk.options.image_size, names, crowd_of)
    name = f"{index + 1:012d}.jpg"
    _save_jpeg(chunk.folder / _COCO_IMAGES / name, scene.image)
    height, width = scene.image.shape[:2]
    image = {"id": index + 1, "file_name": name, "width": width, "height": height}
    annotations = [
        _coco_annotation(scene_object, index + 1, number) for number, scene_object in enumerate(scene.objects)
    ]
    return {"image": image, "annotations": annotations}


def _coco_annotation(scene_object: SceneObject, image_id: int, number: int) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(scene_object.mask.astype(np.uint8)))
    size = [int(n) for n in rle["size"]]
    if scene_object.polygons and number % 4 != 3:
        segmentation: Any = [np.round(p, 2).ravel().tolist() for p in scene_object.polygons]
    elif number % 2 == image_id % 2:
        segmentation = {"size": size, "counts": rle["counts"].decode()}
    else:
        segmentation = {"size": size, "counts": _run_lengths(scene_object.mask)}
    return {
        "image_id": image_id,
        "category_id": _coco_category_id(scene_object.category),
        "segmentation": segmentation,
        "area": int(scene_object.mask.sum()),
        "bbox": [float(n) for n in coco_mask.toBbox(rle)],
        "iscrowd": int(scene_object.is_crowd),
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    # Column by column, first a run of zeros (perhaps empty), then ones, and so on.
    pixels = mask.ravel(order="F").astype(np.int8)
    starts = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *starts, pixels.size]).tolist()
    return [0, *runs] if pixels[0] else runs


def _coco_category_id(name: str) -> int:
    # Not the label map's ids, as in COCO itself: only names tie the two together.
    return 100 + sorted([*SOURCE, *TARGET]).index(name)


def _coco(source: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = [annotation for entry in source for annotation in entry["annotations"]]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    names = sorted([*SOURCE, *TARGET])
    return {
        "info": {"description": "synthetic source domain"},
        "licenses": [],
        "images": [entry["image"] for entry in source],
        "annotations": annotations,
        "categories": [{"id": _coco_category_id(name), "name": name} for name in names],
    }


def _draw_target(chunk: _Chunk, index: int) -> dict[str, Any]:
    rng = _rng(chunk, index)
    names = synthetic_scenes.choose_names(rng, TARGET)
    scene = synthetic_scenes.draw_scene(rng, chunk.options.image_size, names)
    voc, stem = chunk.folder / _VOC, _voc_stem(chunk.split, index)
    _save_jpeg(voc / "JPEGImages" / f"{stem}.jpg", scene.image)
    mask = Image.fromarray(_voc_mask(scene))
    mask.putpalette(palette().tobytes())
    mask.save(voc / "SegmentationClassAug" / f"{stem}.png")
    (voc / "Annotations" / f"{stem}.xml").write_text(_voc_xml(stem, scene))
    return {}


def _voc_stem(split: str, index: int) -> str:
    return f"{split.removeprefix('target_')}_{index + 1:06d}"


def _voc_mask(scene: Scene) -> np.ndarray:
    mask = np.zeros(scene.image.shape[:2], np.uint8)
    for scene_object in scene.objects:
        mask[scene_object.mask] = TARGET.index(scene_object.category) + 1
    # As in VOC, a line of pixels that belong to nobody runs along every boundary.
    border = np.zeros(mask.shape, bool)
    border[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    border[:-1] |= mask[1:] != mask[:-1]
    mask[border] = IGNORE_ID
    return mask


def _voc_xml(stem: str, scene: Scene) -> str:
    height, width = scene.image.shape[:2]
    objects = ""
    for scene_object in scene.objects:
        y, x = np.nonzero(scene_object.mask)
        objects += (
            f"\t<object>\n\t\t<name>{scene_object.category}</name>\n"
            "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n"
            f"\t\t<bndbox><xmin>{x.min() + 1}</xmin><ymin>{y.min() + 1}</ymin>"
            f"<xmax>{x.max() + 1}</xmax><ymax>{y.max() + 1}</ymax></bndbox>\n\t</object>\n"
        )
    return (
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{stem}.jpg</filename>\n"
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"\t<segmented>1</segmented>\n{objects}</annotation>\n"
    )


def _save_jpeg(path: Path, image: np.ndarray) -> None:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=95, subsampling=0)
    path.write_bytes(encoded.getvalue())


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n")
