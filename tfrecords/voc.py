"""Records from a folder in PASCAL VOC's layout.

Labels of an image are the classes of the objects in its XML file, those marked `difficult` included, or
by choice those of its mask. Masks are for evaluation: a split of the target domain may hold them, its
training never reads them. Whether an image's labels and its mask agree is not asked here (in VOC itself
they do not always); `tfrecords.verify` counts where they do not.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfseg.data.images import SUFFIXES
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, Domain, LabelMap
from tfseg.data.records import ImageRecord
from tfseg.errors import InputError, RecordError

from .checks import Findings
from .choices import Exif, LabelsFrom, Malformed, MaskIds, MaskPalette, Unlisted
from .image_paths import is_there
from .images import load_image
from .masks import MaskRules, encode_mask, mask_values, read_mask
from .shards import SplitHead, write_split
from .voc_files import read_list, read_objects

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG",
    *(suffix for suffix in SUFFIXES if suffix not in (".jpg", ".jpeg", ".png")),
)  # fmt: skip
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes of VOC's own masks: the first is index 1."""


@dataclass(frozen=True)
class VocImage:
    """One image of a list.

    Attributes:
        stem: its name without a suffix.
        path: of its file.
        labels: label ids by its annotation, ascending; None if its mask tells them.
    """

    stem: str
    path: Path
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class VocFolder:
    """A folder in VOC's layout, and how records are made from it.

    Attributes:
        root: holds JPEGImages, Annotations and ImageSets/Segmentation.
        label_map: the categories of both domains.
        domain: that the images belong to; classes of the other one are refused.
        masks: folder of the masks, relative to `root`; empty for none.
        labels_from: "annotations" (XML) or "masks".
        unlisted: what becomes of classes that the label map does not list: "error" refuses them, "ignore"
            gives no label and 255 in masks of VOC's numbering, "background" no label and 0.
        malformed: "fail" refuses malformed annotations, "skip" leaves out their images, and images of
            which no record can be made.
        exif: what becomes of images that EXIF says to turn, see `tfrecords.images.load_image`.
        mask_ids: what the masks hold: "label_map", the label map's ids; "voc", VOC's own indices, which mean
            `VOC_CLASSES`; "auto", the latter if all of the domain's labels are classes of VOC and `unlisted`
            is not "error".
        mask_values: what each value of the masks becomes, instead of `mask_ids`; None for nothing.
        mask_palette: as `tfrecords.masks.MaskRules`.
    """

    root: Path
    label_map: LabelMap
    domain: Domain = "target"
    masks: str = "SegmentationClassAug"
    labels_from: LabelsFrom = "annotations"
    unlisted: Unlisted = "error"
    malformed: Malformed = "fail"
    exif: Exif = "error"
    mask_ids: MaskIds = "auto"
    mask_values: Mapping[int, int] | None = None
    mask_palette: MaskPalette = "auto"

    def __call__(self, image: VocImage) -> ImageRecord:
        """Makes the record of one image.

        Raises:
            InputError: a file of it is missing, damaged, or holds what the label map does not have.
        """
        stored = load_image(image.path, self.exif)
        mask = None
        mask_path = self.root / self.masks / f"{image.stem}.png"
        if self.masks and (is_there(mask_path) or self.labels_from == "masks"):
            mask = read_mask(mask_path, self.mask_rules(), stored.height, stored.width)
        labels = image.labels
        if labels is None:
            labels = tuple(sorted(mask_values(mask) - {BACKGROUND_ID, IGNORE_ID}))
        return ImageRecord(
            image=stored.data,
            format=stored.format,
            filename=image.path.name,
            image_id=image.stem,
            height=stored.height,
            width=stored.width,
            labels=labels,
            mask=None if mask is None else encode_mask(mask),
            notes=stored.notes,
        )

    def check(self) -> None:
        """Raises InputError unless the folders are there."""
        if not (self.root / "JPEGImages").is_dir():
            raise InputError(
                f"--voc_root={self.root}: has no folder JPEGImages; the folder VOC2012 itself is wanted"
            )
        if self.masks and not (self.root / self.masks).is_dir():
            raise InputError(
                f"--masks={self.masks}: {self.root / self.masks} is not a folder; --masks= is for no masks"
            )
        if self.labels_from == "masks" and not self.masks:
            raise InputError("--labels_from=masks needs --masks")

    def images(self, split: str) -> tuple[list[VocImage], Findings, int]:
        """What ImageSets/Segmentation/SPLIT.txt lists; all annotations are read, no image is.

        Returns:
            The images, what is malformed of others, and the number of images that the list has.

        Raises:
            InputError: the list is missing or no list, or a class is not of the domain.
        """
        path = self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        stems = read_list(path, lambda stem: self._image(stem) is not None)
        findings, images, refused = Findings(self.malformed), [], {}
        for stem in stems:
            try:
                image = self._image(stem)
                if image is None:
                    where = f"{self.root / 'JPEGImages' / stem}.jpg"
                    message = f"{where}: the image is missing (nor is there a .png)"
                    raise RecordError("image is missing", message)
                labels = None if self.labels_from == "masks" else self._labels(stem, refused)
                images.append(VocImage(stem, image, labels))
            except RecordError as finding:
                findings.found.append(finding)
        if refused:
            more = f"; {len(refused)} classes are not: {', '.join(map(repr, refused))}" * (len(refused) > 1)
            raise InputError(next(iter(refused.values())) + more)
        findings.settle(str(path))
        return images, findings, len(stems)

    def mask_rules(self) -> MaskRules:
        """What the values of the masks mean."""
        ids = self.label_map.ids(self.domain)
        if self.mask_values is not None:
            return MaskRules(ids, self.mask_values, self.mask_palette)
        names = [self.label_map.find(name) for name in VOC_CLASSES]
        own = {label.id: index for index, label in enumerate(names, start=1) if label and label.id in ids}
        is_voc = len(own) == len(ids)
        if self.mask_ids == "label_map" or (
            self.mask_ids == "auto" and not (is_voc and self.unlisted != "error")
        ):
            hint = "; --mask_ids=voc takes VOC's own indices by class name" if is_voc else ""
            return MaskRules(ids, None, self.mask_palette, hint)
        values = {index: label_id for label_id, index in own.items()}
        if self.unlisted != "error":
            unlisted = BACKGROUND_ID if self.unlisted == "background" else IGNORE_ID
            values = dict.fromkeys(range(1, len(VOC_CLASSES) + 1), unlisted) | values
        values |= {BACKGROUND_ID: BACKGROUND_ID, IGNORE_ID: IGNORE_ID}
        hint = " (VOC's own indices); --unlisted=ignore or --unlisted=background leaves other classes out"
        return MaskRules(ids, values, self.mask_palette, hint)

    def _image(self, stem: str) -> Path | None:
        paths = (self.root / "JPEGImages" / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
        return next((path for path in paths if is_there(path)), None)

    def _labels(self, stem: str, refused: dict[str, str]) -> tuple[int, ...]:
        # The labels by the annotation; classes that are not of the domain go into `refused` with a message.
        path = self.root / "Annotations" / f"{stem}.xml"
        labels = set()
        for number, name in enumerate(read_objects(path), start=1):
            label = self.label_map.find(name)
            if label is not None and label.domain == self.domain:
                labels.add(label.id)
            elif label is not None or self.unlisted == "error":
                what = "is not listed in" if label is None else f"is of the {label.domain} domain in"
                allowed = ", ".join(self.label_map.names(self.domain))
                escape = (
                    "; --unlisted=ignore or --unlisted=background goes on without" if label is None else ""
                )
                refused.setdefault(
                    name,
                    f"{path}: object {number}: the class {name!r} {what} the label map "
                    f"{self.label_map.name}; its {self.domain} domain has {allowed}{escape}",
                )
        return tuple(sorted(labels))


def build(
    folder: VocFolder,
    split: str,
    output_dir: str | os.PathLike[str],
    output_split: str = "",
    num_shards: int = 0,
    workers: int = 1,
    runner: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds one split from a VOC folder.

    Args:
        folder: where and how.
        split: names ImageSets/Segmentation/SPLIT.txt.
        output_dir: folder for the records.
        output_split: name of the split that is written; empty for `split`.
        num_shards: as `tfrecords.shards.write_split`.
        workers: number of processes.
        runner: as `tfrecords.shards.write_split`.

    Returns:
        The summary as in `SPLIT.json`.

    Raises:
        InputError: something given is wrong; an earlier split is then as it was.
    """
    folder.check()
    images, findings, listed = folder.images(split)
    head = SplitHead(
        name=output_split or split,
        domain=folder.domain,
        label_map=folder.label_map,
        images_seen=listed,
        images_dropped={"malformed": len(findings.found)} if findings.found else {},
        options=_options(folder, split, num_shards),
        notes=findings.by_kind(),
        skip_malformed=folder.malformed == "skip",
    )
    return write_split(output_dir, head, images, folder, num_shards, workers, runner)


def _options(folder: VocFolder, split: str, num_shards: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "builder": "voc",
        "split": split,
        "domain": folder.domain,
        "masks": Path(folder.masks).name,
        "labels_from": folder.labels_from,
        "num_shards": num_shards,
    }
    # What a split of an older version does not tell is not told as long as it is the default.
    newer = ("unlisted", "malformed", "exif", "mask_ids", "mask_values", "mask_palette")
    default = VocFolder(folder.root, folder.label_map)
    return options | {
        name: getattr(folder, name) for name in newer if getattr(folder, name) != getattr(default, name)
    }
