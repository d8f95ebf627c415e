"""Records from a COCO folder: which images are kept, with which labels.

An image is kept if it has an annotation and, with the exclusion on, none of a category of the other
domain, crowd regions included (SPEC 4.2). A category becomes a label of the image when a region of it
that is no crowd has at least `min_area` pixels by the file's own `area`; a kept image may have none,
and then gives no pair.

With the exclusion off, objects of the other domain's categories are 255 in the masks: their pixels
teach nothing, neither as object nor as background. How masks are painted: `tfrecords.coco_masks`.
"""

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tfrecords.checks import is_count, is_id, is_number, short
from tfrecords.coco_masks import Region, paint
from tfrecords.images import encode_mask, read_image
from tfrecords.shards import SplitHead, write_split
from tfseg.data.labels import DOMAINS, IGNORE_ID, Domain, LabelMap
from tfseg.data.records import ImageRecord
from tfseg.errors import InputError

Unlisted = Literal["error", "ignore", "background"]


@dataclass(frozen=True)
class Rules:
    """What is taken from a COCO file.

    Attributes:
        domain: whose records these are.
        exclude_other: whether images with a category of the other domain are dropped.
        min_area: least area (pixels) with which a region makes its category a label of the image.
        unlisted: what becomes of categories that the label map does not list: "error" refuses the file,
            "ignore" paints them 255, "background" does as if they were not annotated.
    """

    domain: Domain = "source"
    exclude_other: bool = True
    min_area: float = 0.0
    unlisted: Unlisted = "error"


@dataclass(frozen=True)
class CocoImage:
    """One image that is kept.

    Attributes:
        image_id: as in the file.
        file_name: relative to the folder of images.
        height: as in the file.
        width: as in the file.
        labels: label ids, ascending.
        regions: its annotations in the order of the file.
    """

    image_id: int | str
    file_name: str
    height: int
    width: int
    labels: tuple[int, ...]
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Selection:
    """What of a COCO file is kept.

    Attributes:
        images: kept, in the order of their ids.
        seen: number of images in the file.
        dropped: number of images left out, by reason.
    """

    images: tuple[CocoImage, ...]
    seen: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class RecordMaker:
    """Turns kept images into records.

    Attributes:
        annotations: the COCO file, for error messages.
        images_dir: folder of the images.
    """

    annotations: Path
    images_dir: Path

    def __call__(self, image: CocoImage) -> ImageRecord:
        """Reads one image file and paints its mask.

        Raises:
            InputError: the image is missing, damaged or of another size than the file says, or a
                segmentation is malformed.
        """
        path = self.images_dir / image.file_name
        data, image_format, height, width = read_image(path)
        if (height, width) != (image.height, image.width):
            raise InputError(
                f"{path}: is {width}x{height}, but {self.annotations} says {image.width}x{image.height} "
                f"(width x height) of image {image.image_id}"
            )
        where = f"{self.annotations}: image {image.image_id}"
        mask = paint(image.regions, height, width, where)
        return ImageRecord(
            image=data,
            format=image_format,
            filename=image.file_name,
            image_id=str(image.image_id),
            height=height,
            width=width,
            labels=image.labels,
            mask=encode_mask(mask),
        )


def build(
    annotations: str | os.PathLike[str],
    images_dir: str | os.PathLike[str],
    label_map: LabelMap,
    rules: Rules,
    split: str,
    output_dir: str | os.PathLike[str],
    num_shards: int = 0,
    workers: int = 1,
) -> dict[str, Any]:
    """Builds one split from a COCO folder.

    Args:
        annotations: the COCO file.
        images_dir: folder of the images.
        label_map: the categories of both domains, found by name or alias.
        rules: what is taken.
        split: name of the split.
        output_dir: folder for it.
        num_shards: as `tfrecords.shards.write_split`.
        workers: number of processes.

    Returns:
        The summary as in `SPLIT.json`.

    Raises:
        InputError: something given is wrong; an earlier split is then as it was.
    """
    annotations, images_dir = Path(annotations), Path(images_dir)
    if not images_dir.is_dir():
        raise InputError(f"--images={images_dir}: is not a folder")
    selection = select(annotations, label_map, rules)
    missing = [image for image in selection.images if not (images_dir / image.file_name).is_file()]
    if missing:
        raise InputError(
            f"{images_dir / missing[0].file_name}: the image is missing ({len(missing)} of "
            f"{len(selection.images)} images that {annotations} lists are)"
        )
    options = {"builder": "coco", "annotations": annotations.name, **asdict(rules), "num_shards": num_shards}
    head = SplitHead(split, rules.domain, label_map, selection.seen, selection.dropped, options)
    maker = RecordMaker(annotations, images_dir)
    return write_split(output_dir, head, selection.images, maker, num_shards, workers)


def select(annotations: str | os.PathLike[str], label_map: LabelMap, rules: Rules) -> Selection:
    """Reads a COCO file and applies the rules.

    Raises:
        InputError: the file is not of COCO's form; names the image, category or annotation.
    """
    where = str(annotations)
    content = _load(annotations)
    images = {_id(entry, where, "image"): entry for entry in _entries(content, "images", where)}
    _refuse_duplicates(content, "images", images, where)
    values, foreign = _category_values(content, label_map, rules, where)
    regions: dict[int | str, list[tuple[Region, bool]]] = {image_id: [] for image_id in images}
    excluded = set()
    known = {}
    for entry in _entries(content, "annotations", where):
        annotation_id = _id(entry, where, "annotation")
        known[annotation_id] = entry
        at = f"{where}: annotation {annotation_id}"
        image_id, category = entry.get("image_id"), entry.get("category_id")
        if not is_id(image_id) or image_id not in images:
            raise InputError(f"{at}: image_id {image_id!r} is no image of the file")
        if not is_id(category) or category not in values:
            raise InputError(f"{at}: category_id {category!r} is no category of the file")
        if category in foreign:
            excluded.add(image_id)
        region = _region(entry, annotation_id, values[category], at)
        if region:
            regions[image_id].append((region, _is_large(entry, rules.min_area, at)))
    _refuse_duplicates(content, "annotations", known, where)
    own = set(label_map.ids(rules.domain))
    kept, dropped = [], Counter()
    other = DOMAINS[1 - DOMAINS.index(rules.domain)]
    for image_id in sorted(images, key=lambda key: (isinstance(key, str), key)):
        if rules.exclude_other and image_id in excluded:
            dropped[f"has a {other} category"] += 1
        elif not regions[image_id]:
            dropped["no annotation"] += 1
        else:
            kept.append(_image(images[image_id], regions[image_id], own, where))
    return Selection(tuple(kept), len(images), dict(sorted(dropped.items())))


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f"{path}: the annotations cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a COCO annotation file: an object is needed at the top")
    return content


def _entries(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{where}: is not a COCO annotation file: "{key}" must be a list of objects')
    return entries


def _id(entry: dict[str, Any], where: str, what: str) -> int | str:
    if not is_id(entry.get("id")):
        raise InputError(f"{where}: {what} {short(entry)} has no id (a whole number or a string)")
    return entry["id"]


def _refuse_duplicates(content: dict[str, Any], key: str, by_id: dict[Any, Any], where: str) -> None:
    if len(by_id) < len(content[key]):
        counts = Counter(entry["id"] for entry in content[key])
        twice = [str(entry_id) for entry_id, count in counts.items() if count > 1]
        raise InputError(f'{where}: "{key}" has the id {twice[0]} more than once')


def _category_values(
    content: dict[str, Any], label_map: LabelMap, rules: Rules, where: str
) -> tuple[dict[int | str, int | None], set[int | str]]:
    # What each category's pixels become (None: nothing), and the categories of the other domain.
    values: dict[int | str, int | None] = {}
    foreign, unlisted = set(), []
    for entry in _entries(content, "categories", where):
        category, name = _id(entry, where, "category"), entry.get("name")
        if not isinstance(name, str):
            raise InputError(f"{where}: category {category}: name must be a string, found {short(name)}")
        label = label_map.find(name)
        if label is None:
            unlisted.append(name)
            values[category] = None if rules.unlisted == "background" else IGNORE_ID
        elif label.domain == rules.domain:
            values[category] = label.id
        else:
            values[category] = IGNORE_ID
            foreign.add(category)
    _refuse_duplicates(content, "categories", values, where)
    if unlisted and rules.unlisted == "error":
        raise InputError(
            f"{where}: categories that the label map {label_map.name} does not list: {', '.join(unlisted)}; "
            "list them there, or choose --unlisted=ignore or --unlisted=background"
        )
    return values, foreign


def _region(entry: dict[str, Any], annotation_id: int | str, value: int | None, at: str) -> Region | None:
    if "segmentation" not in entry:
        raise InputError(f"{at}: has no segmentation")
    is_crowd = entry.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        raise InputError(f"{at}: iscrowd must be 0 or 1, found {short(is_crowd)}")
    if value is None:
        return None
    return Region(annotation_id, value, bool(is_crowd), entry["segmentation"])


def _is_large(entry: dict[str, Any], min_area: float, at: str) -> bool:
    if not min_area:
        return True
    area = entry.get("area")
    if not is_number(area) or area < 0:
        raise InputError(f"{at}: --min_area needs its area, a number >= 0, found {short(area)}")
    return area >= min_area


def _image(entry: dict[str, Any], regions: list[tuple[Region, bool]], own: set[int], where: str) -> CocoImage:
    at = f"{where}: image {entry['id']}"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"{at}: file_name must be a file's name, found {short(name)}")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{at}: file_name {name!r} leaves the folder of images")
    for side in ("height", "width"):
        if not is_count(entry.get(side)) or not entry[side]:
            raise InputError(f"{at}: {side} must be a whole number above 0, found {short(entry.get(side))}")
    labels = {region.value for region, is_large in regions if is_large and not region.is_crowd}
    return CocoImage(
        image_id=entry["id"],
        file_name=name,
        height=entry["height"],
        width=entry["width"],
        labels=tuple(sorted(labels & own)),
        regions=tuple(region for region, _ in regions),
    )
