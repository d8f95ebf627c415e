"""Records from a folder in PASCAL VOC's layout.

Labels of an image are the classes of the objects in its XML file, those marked `difficult` included, or
by choice those of its mask. Masks are for evaluation: a split of the target domain may hold them, its
training never reads them. Whether an image's labels and its mask agree is not asked here (in VOC itself
they do not always); `tfrecords.verify` counts where they do not.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from tfrecords.images import encode_mask, mask_values, read_image, read_mask
from tfrecords.shards import SplitHead, write_split
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, Domain, LabelMap
from tfseg.data.records import ImageRecord
from tfseg.errors import InputError

LabelsFrom = Literal["annotations", "masks"]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True)
class VocFolder:
    """A folder in VOC's layout, and how records are made from it.

    Attributes:
        root: holds JPEGImages, Annotations and ImageSets/Segmentation.
        label_map: the categories of both domains.
        domain: that the images belong to; other classes are refused.
        masks: folder of the masks, relative to `root`; empty for none.
        labels_from: "annotations" (XML) or "masks".
    """

    root: Path
    label_map: LabelMap
    domain: Domain = "target"
    masks: str = "SegmentationClassAug"
    labels_from: LabelsFrom = "annotations"

    def __call__(self, stem: str) -> ImageRecord:
        """Makes the record of one image.

        Args:
            stem: its name without a suffix.

        Raises:
            InputError: a file of it is missing, damaged, or holds what the label map does not have.
        """
        path = self._image(stem)
        data, image_format, height, width = read_image(path)
        mask = None
        mask_path = self.root / self.masks / f"{stem}.png"
        if self.masks and (mask_path.is_file() or self.labels_from == "masks"):
            mask = read_mask(mask_path, self.label_map.ids(self.domain), height, width)
        if self.labels_from == "masks":
            labels = mask_values(mask) - {BACKGROUND_ID, IGNORE_ID}
        else:
            labels = self._labels(self.root / "Annotations" / f"{stem}.xml")
        return ImageRecord(
            image=data,
            format=image_format,
            filename=path.name,
            image_id=stem,
            height=height,
            width=width,
            labels=tuple(sorted(labels)),
            mask=None if mask is None else encode_mask(mask),
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

    def stems(self, split: str) -> list[str]:
        """The names of the images that ImageSets/Segmentation/SPLIT.txt lists.

        Raises:
            InputError: the list is missing, empty, or not a list of names.
        """
        path = self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
            raise InputError(f"{path}: cannot be read ({error.strerror}); lists there: {there}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not a text file ({error})") from error
        for number, line in enumerate(lines, start=1):
            if len(line.split()) > 1 or Path(line.strip()).name != line.strip():
                raise InputError(
                    f"{path}: line {number}: the name of one image, without folder and suffix, is wanted, "
                    f"found {line!r}"
                )
        stems = [line.strip() for line in lines if line.strip()]
        if not stems:
            raise InputError(f"{path}: lists no image")
        stem, count = Counter(stems).most_common(1)[0]
        if count > 1:
            raise InputError(f"{path}: lists the image {stem} {count} times")
        return stems

    def _image(self, stem: str) -> Path:
        for suffix in IMAGE_SUFFIXES:
            path = self.root / "JPEGImages" / f"{stem}{suffix}"
            if path.is_file():
                return path
        raise InputError(f"{self.root / 'JPEGImages' / stem}.jpg: the image is missing (nor is there a .png)")

    def _labels(self, path: Path) -> set[int]:
        try:
            root = ElementTree.parse(path).getroot()
        except OSError as error:
            raise InputError(f"{path}: the annotation cannot be read ({error.strerror})") from error
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise InputError(f"{path}: is not XML ({error})") from error
        if root.tag != "annotation":
            raise InputError(f"{path}: is not a VOC annotation: <annotation> is wanted, found <{root.tag}>")
        labels = set()
        for number, element in enumerate(root.findall("object"), start=1):
            name = (element.findtext("name") or "").strip()
            label = self.label_map.find(name)
            if label is None or label.domain != self.domain:
                what = "is not listed in" if label is None else f"is of the {label.domain} domain in"
                allowed = ", ".join(self.label_map.names(self.domain))
                raise InputError(
                    f"{path}: object {number}: the class {name!r} {what} the label map "
                    f"{self.label_map.name}; its {self.domain} domain has {allowed}"
                )
            labels.add(label.id)
        return labels


def build(
    folder: VocFolder,
    split: str,
    output_dir: str | os.PathLike[str],
    output_split: str = "",
    num_shards: int = 0,
    workers: int = 1,
) -> dict[str, Any]:
    """Builds one split from a VOC folder.

    Args:
        folder: where and how.
        split: names ImageSets/Segmentation/SPLIT.txt.
        output_dir: folder for the records.
        output_split: name of the split that is written; empty for `split`.
        num_shards: as `tfrecords.shards.write_split`.
        workers: number of processes.

    Returns:
        The summary as in `SPLIT.json`.

    Raises:
        InputError: something given is wrong; an earlier split is then as it was.
    """
    folder.check()
    stems = folder.stems(split)
    options = {
        "builder": "voc",
        "split": split,
        "domain": folder.domain,
        "masks": Path(folder.masks).name,
        "labels_from": folder.labels_from,
        "num_shards": num_shards,
    }
    head = SplitHead(output_split or split, folder.domain, folder.label_map, len(stems), {}, options)
    return write_split(output_dir, head, stems, folder, num_shards, workers)
