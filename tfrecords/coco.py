"""Records from a COCO folder: which images are kept, with which labels.

An image is kept if it has an annotation and, with the exclusion on, none of a category of the other
domain, crowd regions included (SPEC 4.2). A category becomes a label of the image when a region of it
that is no crowd has at least `min_area` pixels by the file's own `area`, and at least one pixel in the
image; a kept image may have none, and then gives no pair.

With the exclusion off, objects of the other domain's categories are 255 in the masks: their pixels
teach nothing, neither as object nor as background. How masks are painted: `tfrecords.coco_masks`.

The target domain needs image labels only: there an annotation may have a box and no segmentation, and its
image then has no mask.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfseg.data.labels import DOMAINS, IGNORE_ID, Domain, LabelMap, is_name
from tfseg.data.records import ImageRecord
from tfseg.errors import InputError, RecordError
from tfseg.files import read_json

from .checks import Findings, identifier, is_number, short
from .checks import count as as_count
from .choices import EmptyRegions, Exif, Malformed, Unlisted
from .coco_masks import Region, check, decode_all, lay
from .image_paths import leaves, locate, missing_hint
from .images import load_image, size_hint
from .masks import encode_mask
from .shards import SplitHead, write_split


@dataclass(frozen=True)
class Rules:
    """What is taken from a COCO file.

    Attributes:
        domain: whose records these are.
        exclude_other: whether images with a category of the other domain are dropped.
        min_area: least area (pixels) with which a region makes its category a label of the image.
        unlisted: what becomes of categories that the label map does not list: "error" refuses the file,
            "ignore" paints them 255, "background" does as if they were not annotated.
        malformed: "fail" refuses a file with malformed entries, "skip" leaves these out, and images of
            which no record can be made.
        exif: what becomes of images that EXIF says to turn, see `tfrecords.images.load_image`.
        empty_regions: whether a region without a pixel in the image makes its category a label ("keep").
    """

    domain: Domain = "source"
    exclude_other: bool = True
    min_area: float = 0.0
    unlisted: Unlisted = "error"
    malformed: Malformed = "fail"
    exif: Exif = "error"
    empty_regions: EmptyRegions = "drop"


@dataclass(frozen=True)
class CocoImage:
    """One image that is kept.

    Attributes:
        image_id: as in the file.
        file_name: relative to the folder of images.
        height: as in the file.
        width: as in the file.
        labels: label ids by the annotations, ascending.
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
        notes: number of entries left out, by what is wrong with them.
    """

    images: tuple[CocoImage, ...]
    seen: int
    dropped: dict[str, int]
    notes: dict[str, int]


@dataclass(frozen=True)
class RecordMaker:
    """Turns kept images into records.

    Attributes:
        annotations: the COCO file, for error messages.
        images_dir: folder of the images.
        rules: what is taken.
    """

    annotations: Path
    images_dir: Path
    rules: Rules = Rules()

    def __call__(self, image: CocoImage) -> ImageRecord:
        """Reads one image file and paints its mask.

        Raises:
            InputError: the image is missing, damaged or of another size than the file says.
        """
        path = self.images_dir / image.file_name
        stored = load_image(path, self.rules.exif, (image.height, image.width))
        size = stored.height, stored.width
        if size != (image.height, image.width):
            raise InputError(
                f"{path}: is {size[1]}x{size[0]}, but {self.annotations} says {image.width}x{image.height} "
                f"(width x height) of image {image.image_id}{size_hint(stored, image.height, image.width)}"
            )
        labels, notes, mask = set(image.labels), list(stored.notes), None
        if all(region.segmentation is not None for region in image.regions):
            pixels = decode_all(image.regions, *size, f"{self.annotations}: image {image.image_id}")
            mask = encode_mask(lay(image.regions, pixels, *size))
            seen = {
                region.value
                for region, covered in zip(image.regions, pixels, strict=True)
                if region.names_label and covered.any()
            }
            notes += [f"labels without a pixel, {_DONE[self.rules.empty_regions]}"] * len(labels - seen)
            if self.rules.empty_regions == "drop":
                labels &= seen
        return ImageRecord(
            image=stored.data,
            format=stored.format,
            filename=image.file_name,
            image_id=str(image.image_id),
            height=stored.height,
            width=stored.width,
            labels=tuple(sorted(labels)),
            mask=mask,
            notes=tuple(notes),
        )


_DONE = {"drop": "dropped", "keep": "kept"}


def build(
    annotations: str | os.PathLike[str],
    images_dir: str | os.PathLike[str],
    label_map: LabelMap,
    rules: Rules,
    split: str,
    output_dir: str | os.PathLike[str],
    num_shards: int = 0,
    workers: int = 1,
    runner: Sequence[str] = (),
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
        runner: as `tfrecords.shards.write_split`.

    Returns:
        The summary as in `SPLIT.json`.

    Raises:
        InputError: something given is wrong; an earlier split is then as it was.
    """
    annotations, images_dir = Path(annotations), Path(images_dir)
    if not images_dir.is_dir():
        raise InputError(f"--images={images_dir}: is not a folder")
    selection = select(annotations, label_map, rules)
    images, dropped = _located(selection, images_dir, annotations, rules.malformed)
    options = {"builder": "coco", "annotations": annotations.name, **_options(rules)}
    head = SplitHead(
        name=split,
        domain=rules.domain,
        label_map=label_map,
        images_seen=selection.seen,
        images_dropped=dropped,
        options={**options, "num_shards": num_shards},
        notes=selection.notes,
        skip_malformed=rules.malformed == "skip",
    )
    maker = RecordMaker(annotations, images_dir, rules)
    return write_split(output_dir, head, images, maker, num_shards, workers, runner)


def select(annotations: str | os.PathLike[str], label_map: LabelMap, rules: Rules) -> Selection:
    """Reads a COCO file and applies the rules. All of it is checked before an image is read.

    Raises:
        InputError: the file is not of COCO's form; names the images, categories or annotations.
    """
    where = str(annotations)
    content = read_json(annotations)
    if not isinstance(content, dict):
        raise InputError(f"{where}: is not a COCO annotation file: an object is needed at the top")
    findings = Findings(rules.malformed)
    images = _images(content, where, findings)
    categories = _Categories(content, label_map, rules, where)
    regions: dict[int | str, list[Region]] = {image_id: [] for image_id in images}
    excluded, known = set(), set()
    entries = _entries(content, "annotations", where)
    categories.refuse_unlisted(entries)
    for number, entry in enumerate(entries, start=1):
        if "id" not in entry:  # Some tools write none; it serves messages alone.
            entry = {**entry, "id": f"number {number}"}
        if identifier(entry.get("category_id")) in categories.foreign:
            excluded.add(identifier(entry.get("image_id")))  # also if it is malformed otherwise
        try:
            image_id, region = _annotation(entry, images, categories, known, where)
        except RecordError as finding:
            findings.found.append(finding)
            continue
        if region:
            regions[image_id].append(region)
    own = set(label_map.ids(rules.domain))
    kept, dropped = [], Counter()
    other = DOMAINS[1 - DOMAINS.index(rules.domain)]
    for image_id in sorted(images, key=lambda key: (isinstance(key, str), key)):
        if rules.exclude_other and image_id in excluded:
            dropped[f"has a {other} category"] += 1
        elif not regions[image_id]:
            dropped["no annotation"] += 1
        elif image := _image(images[image_id], image_id, regions[image_id], own, findings, where):
            kept.append(image)
        else:
            dropped["malformed"] += 1
    findings.settle(where)
    return Selection(tuple(kept), len(content["images"]), dict(sorted(dropped.items())), findings.by_kind())


def _options(rules: Rules) -> dict[str, Any]:
    # What a split of an older version does not tell is not told as long as it is the default.
    default = Rules()
    newer = ("malformed", "exif", "empty_regions")
    return {
        name: value
        for name, value in asdict(rules).items()
        if name not in newer or value != getattr(default, name)
    }


def _located(
    selection: Selection, images_dir: Path, annotations: Path, malformed: Malformed
) -> tuple[list[CocoImage], dict[str, int]]:
    # The kept images whose files are there, by the names of these, and the counts of the others.
    found, missing = [], []
    for image in selection.images:
        name = locate(images_dir, image.file_name)
        if name is None:
            missing.append(image)
        else:
            found.append(image if name == image.file_name else _renamed(image, name))
    if missing and (malformed == "fail" or not found):
        first = missing[0].file_name
        hint = missing_hint(images_dir, first)
        raise InputError(
            f"{images_dir / first}: the image is missing ({len(missing)} of "
            f"{len(selection.images)} images that {annotations} lists are){'; ' * bool(hint)}{hint}"
        )
    return found, selection.dropped | ({"image is missing": len(missing)} if missing else {})


def _renamed(image: CocoImage, name: str) -> CocoImage:
    return CocoImage(**{**vars(image), "file_name": name})


def _entries(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{where}: is not a COCO annotation file: "{key}" must be a list of objects')
    return entries


def _id(entry: dict[str, Any], where: str, what: str) -> int | str:
    found = identifier(entry.get("id"))
    if found is None:
        message = f"{where}: {what} {short(entry)} has no id (a whole number or a string)"
        raise RecordError(f"{what} without an id", message)
    return found


def _images(content: dict[str, Any], where: str, findings: Findings) -> dict[int | str, dict[str, Any]]:
    images: dict[int | str, dict[str, Any]] = {}
    for entry in _entries(content, "images", where):
        try:
            image_id = _id(entry, where, "image")
        except RecordError as finding:
            findings.found.append(finding)
            continue
        if image_id in images:
            raise InputError(f'{where}: "images" has the id {image_id} more than once')
        images[image_id] = entry
    return images


class _Categories:
    """What each category's pixels become, and whose it is.

    Attributes:
        values: category id to pixel value; None: nothing.
        foreign: ids of the categories of the other domain.
        rules: what is taken.
    """

    def __init__(self, content: dict[str, Any], label_map: LabelMap, rules: Rules, where: str) -> None:
        self.rules, self._where, self._label_map = rules, where, label_map
        self.values: dict[int | str, int | None] = {}
        self.foreign: set[int | str] = set()
        self._unlisted: dict[int | str, Any] = {}
        for entry in _entries(content, "categories", where):
            category, name = _id(entry, where, "category"), entry.get("name")
            if category in self.values:
                raise InputError(f'{where}: "categories" has the id {category} more than once')
            label = label_map.find(name) or label_map.find(name.strip()) if isinstance(name, str) else None
            if label is None:
                self._unlisted[category] = name
                self.values[category] = None if rules.unlisted == "background" else IGNORE_ID
            elif label.domain == rules.domain:
                self.values[category] = label.id
            else:
                self.values[category] = IGNORE_ID
                self.foreign.add(category)

    def refuse_unlisted(self, annotations: Sequence[dict[str, Any]]) -> None:
        """Raises InputError if the rules want it; categories without an annotation do not matter."""
        used = {identifier(entry.get("category_id")) for entry in annotations}
        unlisted = {category: name for category, name in self._unlisted.items() if category in used}
        for category, name in unlisted.items():
            if not isinstance(name, str):
                raise InputError(
                    f"{self._where}: category {category}: name must be a string, found {short(name)}"
                )
        if unlisted and self.rules.unlisted == "error":
            raise InputError(
                f"{self._where}: categories that the label map {self._label_map.name} does not list: "
                f"{', '.join(unlisted.values())}; list them there, or choose --unlisted=ignore or "
                "--unlisted=background"
            )


def _annotation(
    entry: dict[str, Any],
    images: dict[int | str, dict[str, Any]],
    categories: _Categories,
    known: set[int | str],
    where: str,
) -> tuple[int | str, Region | None]:
    # Its image and its region (None: painted as nothing).
    annotation_id = _id(entry, where, "annotation")
    at = f"{where}: annotation {annotation_id}"
    if annotation_id in known:
        raise RecordError(
            "annotation's id again", f'{where}: "annotations" has the id {annotation_id} more than once'
        )
    known.add(annotation_id)
    image_id, category = identifier(entry.get("image_id")), identifier(entry.get("category_id"))
    if image_id not in images:
        message = f"{at}: image_id {short(entry.get('image_id'))} is no image of the file"
        raise RecordError("annotation of no image", message)
    if category not in categories.values:
        message = f"{at}: category_id {short(entry.get('category_id'))} is no category of the file"
        raise RecordError("annotation of no category", message)
    is_crowd = entry.get("iscrowd")
    if is_crowd not in (None, 0, 1):
        raise RecordError("iscrowd", f"{at}: iscrowd must be 0 or 1, found {short(is_crowd)}")
    has_box_only = categories.rules.domain == "target" and not entry.get("segmentation")
    if has_box_only and "bbox" not in entry:
        raise RecordError("no segmentation", f"{at}: has neither segmentation nor bbox")
    if not has_box_only and entry.get("segmentation") is None:
        raise RecordError(
            "no segmentation", f"{at}: has no segmentation{_BOX_HINT if 'bbox' in entry else ''}"
        )
    value = categories.values[category]
    if value is None:
        return image_id, None
    names_label = _is_large(entry, categories.rules.min_area, at) and not is_crowd
    if has_box_only:
        names_label &= _box_has_pixels(entry["bbox"], images[image_id], at)
    segmentation = None if has_box_only else entry["segmentation"]
    return image_id, Region(annotation_id, value, bool(is_crowd), segmentation, names_label)


_BOX_HINT = " (a box alone is enough with --domain=target)"


def _is_large(entry: dict[str, Any], min_area: float, at: str) -> bool:
    if not min_area:
        return True
    area = entry.get("area")
    if not is_number(area) or area < 0:
        message = f"{at}: --min_area needs its area, a number >= 0, found {short(area)}"
        raise RecordError("area", message)
    return area >= min_area


def _box_has_pixels(box: Any, image: dict[str, Any], at: str) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(number) for number in box):
        raise RecordError("bbox", f"{at}: bbox must be a list x, y, width, height, found {short(box)}")
    x, y, box_width, box_height = box
    width, height = as_count(image.get("width")) or 0, as_count(image.get("height")) or 0
    return box_width > 0 and box_height > 0 and -box_width < x < width and -box_height < y < height


def _image(
    entry: dict[str, Any],
    image_id: int | str,
    regions: list[Region],
    own: set[int],
    findings: Findings,
    where: str,
) -> CocoImage | None:
    # None if nothing of it can be kept; regions whose segmentation is malformed are left out.
    at = f"{where}: image {image_id}"
    try:
        name, height, width = _file_name(entry, at), _side(entry, "height", at), _side(entry, "width", at)
    except RecordError as finding:
        findings.found.append(finding)
        return None
    sound = []
    for region in regions:
        try:
            if region.segmentation is not None:
                check(region.segmentation, height, width, f"{at}, annotation {region.annotation_id}")
            sound.append(region)
        except RecordError as finding:
            findings.found.append(finding)
    if not sound:
        return None
    labels = {region.value for region in sound if region.names_label}
    return CocoImage(image_id, name, height, width, tuple(sorted(labels & own)), tuple(sound))


def _file_name(entry: dict[str, Any], at: str) -> str:
    name = entry.get("file_name")
    if not is_name(name):
        raise RecordError("file_name", f"{at}: file_name must be a file's name, found {short(name)}")
    if leaves(name) or leaves(name.replace("\\", "/")):
        raise RecordError("file_name", f"{at}: file_name {name!r} leaves the folder of images")
    return name


def _side(entry: dict[str, Any], side: str, at: str) -> int:
    pixels = as_count(entry.get(side))
    if not pixels:
        message = f"{at}: {side} must be a whole number above 0, found {short(entry.get(side))}"
        raise RecordError(f"image's {side}", message)
    return pixels
