"""Records from a folder of images: class folders, a CSV file of labels, or masks beside the images.

Which of the three tells the labels of an image:

    --csv     the file's rows, `file,label1;label2`; only images that it lists are taken
    --masks   the classes in the mask of the same relative path, as PNG; with --csv masks are stored besides
    else      the folder within `root` that the image lies in, at any depth: `cats/001.jpg` is a `cats`

An image's id is its path within `root` without the suffix, so that `cats/001` and `dogs/001` differ.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tfseg.data.images import read_file
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, Domain, LabelMap, is_name
from tfseg.data.records import ImageRecord
from tfseg.errors import InputError, RecordError

from .checks import MAX_TOLD, Findings
from .choices import Exif, Malformed, Unlisted
from .folder_lists import labels_of, read_rows
from .image_paths import folders_in, images_in, is_there, locate, missing_hint
from .images import load_image
from .masks import MaskRules, encode_mask, mask_values, read_mask
from .pool import run_tasks
from .shards import SplitHead, write_split


@dataclass(frozen=True)
class FolderImage:
    """One image that is taken.

    Attributes:
        image_id: see the module's docstring.
        file_name: relative to the folder.
        labels: label ids, ascending; None if its mask tells them.
        mask: path of its mask, None for none.
    """

    image_id: str
    file_name: str
    labels: tuple[int, ...] | None
    mask: Path | None


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images, and how records are made from it.

    Attributes:
        root: the folder.
        label_map: the categories of both domains.
        domain: that the images belong to; labels of the other one are refused.
        csv_file: names the labels; None for none.
        masks: folder of the masks, None for none.
        mask_rules: what their values mean; label ids if None.
        unlisted: what becomes of labels that the label map does not list: "error" refuses them; else they are
            left out, and so are images that have no other.
        malformed: "fail" refuses malformed rows, missing images and missing masks, "skip" leaves them out,
            and images of which no record can be made.
        exif: what becomes of images that EXIF says to turn, see `tfrecords.images.load_image`.
    """

    root: Path
    label_map: LabelMap
    domain: Domain = "target"
    csv_file: Path | None = None
    masks: Path | None = None
    mask_rules: MaskRules | None = None
    unlisted: Unlisted = "error"
    malformed: Malformed = "fail"
    exif: Exif = "error"

    def __call__(self, image: FolderImage) -> ImageRecord:
        """Makes the record of one image.

        Raises:
            InputError: the image or its mask is damaged, or the mask holds what the label map does not have.
        """
        stored = load_image(self.root / image.file_name, self.exif)
        mask, labels = None, image.labels
        if image.mask is not None:
            rules = self.mask_rules or MaskRules(self.label_map.ids(self.domain))
            mask = read_mask(image.mask, rules, stored.height, stored.width)
        if labels is None:
            labels = tuple(sorted(mask_values(mask) - {BACKGROUND_ID, IGNORE_ID}))
        return ImageRecord(
            image=stored.data,
            format=stored.format,
            filename=image.file_name,
            image_id=image.image_id,
            height=stored.height,
            width=stored.width,
            labels=labels,
            mask=None if mask is None else encode_mask(mask),
            notes=stored.notes,
        )

    def images(self) -> tuple[list[FolderImage], dict[str, int], Findings]:
        """What is taken; no image is read.

        Returns:
            The images, how many others were left out, by reason, and what is malformed.

        Raises:
            InputError: a folder or file is missing, or a label is not of the domain.
        """
        for folder, flag in ((self.root, "--images"), (self.masks, "--masks")):
            if folder is not None and not folder.is_dir():
                raise InputError(f"{flag}={folder}: is not a folder")
        findings = Findings(self.malformed)
        named = self._from_csv(findings) if self.csv_file else self._from_folders(findings)
        listed = self._label_ids({label: where for _, labels, where in named for label in labels or ()})
        dropped: Counter[str] = Counter()
        taken: list[tuple[str, tuple[int, ...] | None]] = []
        for file_name, labels, _ in named:
            ids = None if labels is None else {listed[label] for label in labels if label in listed}
            if labels and not ids:
                dropped["of unlisted classes alone"] += 1
            else:
                taken.append((file_name, None if ids is None else tuple(sorted(ids))))
        images = list(self._with_masks(taken, findings))
        dropped["malformed"] = len(taken) - len(images)
        findings.settle(str(self.csv_file or self.root))
        return images, {reason: n for reason, n in dropped.items() if n}, findings

    def _from_folders(self, findings: Findings) -> list[tuple[str, set[str] | None, str]]:
        # (file, names of its labels or None, where that is said).
        files = images_in(self.root)
        if not files:
            raise InputError(f"--images={self.root}: holds no image")
        named: list[tuple[str, set[str] | None, str]] = []
        for file_name in files:
            first, _, rest = file_name.partition("/")
            if not is_name(file_name):
                message = f"{str(self.root / file_name)!a}: the name is not UTF-8, or has control characters"
                findings.found.append(RecordError("file's name", message))
            elif self.masks is not None:
                named.append((file_name, None, ""))
            elif rest:
                named.append((file_name, {first}, str(self.root / first)))
            else:
                message = f"{self.root / file_name}: lies in no class folder"
                findings.found.append(RecordError("image in no class folder", message))
        if not named and all(finding.kind == "image in no class folder" for finding in findings.found):
            raise InputError(
                f"--images={self.root}: has no class folders such as {self.root / 'cat'}; without them --csv "
                "or --masks must tell the labels"
            )
        return named

    def _from_csv(self, findings: Findings) -> list[tuple[str, set[str], str]]:
        labels: dict[str, set[str]] = {}
        where: dict[str, str] = {}
        for number, row in read_rows(self.csv_file):
            at = f"{self.csv_file}: line {number}"
            name = row[0].strip(" \t")
            file_name = locate(self.root, name) if is_name(name) else None
            if len(row) < 2:
                message = f"{at}: file,label1;label2 is wanted, found {row[0]!r}"
                findings.found.append(RecordError("row without labels", message))
            elif file_name is None:
                hint = _hint(findings, self.root, name, "--images") if is_name(name) else ""
                message = f"{at}: {self.root / name}: the image is missing{hint}"
                findings.found.append(RecordError("image is missing", message))
            else:
                labels.setdefault(file_name, set()).update(labels_of(row))
                where.setdefault(file_name, at)
        if not labels and not findings.found:
            raise InputError(f"{self.csv_file}: lists no image")
        return [(file_name, labels[file_name], where[file_name]) for file_name in sorted(labels)]

    def _label_ids(self, where: dict[str, str]) -> dict[str, int]:
        # The ids of the names that are labels of the domain.
        ids, refused = {}, {}
        for name, at in where.items():
            label = self.label_map.find(name)
            if label is not None and label.domain == self.domain:
                ids[name] = label.id
            elif label is not None or self.unlisted == "error":
                what = "is not listed in" if label is None else f"is of the {label.domain} domain in"
                refused[name] = f"{at}: the label {name!r} {what} the label map {self.label_map.name}"
                inside = self.root / name
                if self.csv_file is None and any(self.label_map.find(one) for one in folders_in(inside)):
                    refused[name] += f" (--images={inside} would fit: it has class folders)"
        if refused:
            more = f"; {len(refused)} labels are not: {', '.join(map(repr, refused))}" * (len(refused) > 1)
            raise InputError(
                f"{next(iter(refused.values()))}; its {self.domain} domain has "
                f"{', '.join(self.label_map.names(self.domain))}{more}; --unlisted=ignore goes on without"
            )
        return ids

    def _with_masks(
        self, taken: list[tuple[str, tuple[int, ...] | None]], findings: Findings
    ) -> Iterator[FolderImage]:
        # Ids clash where two files differ in their suffix alone: those keep it.
        stems = Counter(PurePosixPath(file_name).with_suffix("") for file_name, _ in taken)
        for file_name, labels in taken:
            stem = PurePosixPath(file_name).with_suffix("")
            mask = None if self.masks is None else self.masks / f"{stem}.png"
            if mask is not None and not is_there(mask):
                if labels is None or self.domain == "source":
                    hint = _hint(findings, self.masks, f"{stem}.png", "--masks")
                    message = f"{mask}: the mask of {self.root / file_name} is missing{hint}"
                    findings.found.append(RecordError("mask is missing", message))
                    continue
                mask = None
            yield FolderImage(file_name if stems[stem] > 1 else str(stem), file_name, labels, mask)


def build(
    folder: ImageFolder,
    output_dir: str | os.PathLike[str],
    split: str,
    val_split: str = "",
    val_fraction: float = 0.0,
    split_seed: int = 0,
    num_shards: int = 0,
    workers: int = 1,
    runner: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Builds one split, or two that share no image, from a folder.

    Args:
        folder: where and how.
        output_dir: folder for the records.
        split: name of the split.
        val_split: name of the split that is held out.
        val_fraction: share of the images that goes there, in [0, 1); equal files go to one side.
        split_seed: chooses them.
        num_shards: of each split, as `tfrecords.shards.write_split`.
        workers: number of processes; changes nothing in the result.
        runner: as `tfrecords.shards.write_split`.

    Returns:
        The summaries as in `SPLIT.json`.

    Raises:
        InputError: something given is wrong; earlier splits are then as they were.
    """
    images, dropped, findings = folder.images()
    parts = {split: images}
    if val_fraction:
        if val_split == split:
            raise InputError(f"--val_split={val_split}: must differ from --split")
        kept, held_out = _divided(folder, images, val_fraction, split_seed, workers)
        parts = {split: kept, val_split: held_out}
    summaries = []
    for name, part in parts.items():
        head = SplitHead(
            name=name,
            domain=folder.domain,
            label_map=folder.label_map,
            images_seen=len(part) + sum(dropped.values()),
            images_dropped=dropped,
            options=_options(folder, val_fraction, split_seed, num_shards),
            notes=findings.by_kind(),
            skip_malformed=folder.malformed == "skip",
        )
        summaries.append(write_split(output_dir, head, part, folder, num_shards, workers, runner))
    return summaries


def _divided(
    folder: ImageFolder, images: Sequence[FolderImage], val_fraction: float, split_seed: int, workers: int
) -> tuple[list[FolderImage], list[FolderImage]]:
    """Returns the images that stay and those that are held out; equal files go to one side."""
    paths = [folder.root / image.file_name for image in images]
    digests = list(run_tasks(_digest, paths, workers, "dividing", " images", preload=[__name__]))
    held = _held_out(digests, val_fraction, split_seed)
    parts: tuple[list, list] = [], []
    for image, digest in zip(images, digests, strict=True):
        parts[digest in held].append(image)
    return parts


def _hint(findings: Findings, folder: Path, name: str, flag: str) -> str:
    # Looked for only where it is told: a folder may hold very many files.
    hint = missing_hint(folder, name, flag) if len(findings.found) < MAX_TOLD else ""
    return hint and f"; {hint}"


def _digest(path: Path) -> str:
    try:
        content = read_file(path, str(path))
    except InputError:  # Making its record tells, or counts, what is wrong.
        content = os.fsencode(path)
    return hashlib.sha256(content).hexdigest()


def _held_out(digests: Sequence[str], fraction: float, seed: int) -> set[str]:
    # Files, by content, until their images are the wanted share; at least one on either side.
    counts = Counter(digests)
    order = sorted(counts, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
    if len(order) < 2:
        raise InputError(f"--val_fraction={fraction}: needs two different images, there is {len(order)}")
    held, images = {order[0]}, counts[order[0]]
    for digest in order[1:-1]:
        if images >= round(fraction * len(digests)):
            break
        held.add(digest)
        images += counts[digest]
    return held


def _options(folder: ImageFolder, val_fraction: float, split_seed: int, num_shards: int) -> dict[str, Any]:
    labels_from = "csv" if folder.csv_file else "masks" if folder.masks else "folders"
    options: dict[str, Any] = {"builder": "folder", "domain": folder.domain, "labels_from": labels_from}
    if folder.masks is not None:
        options["masks"] = folder.masks.name
        if folder.mask_rules is not None:
            options |= {"mask_values": folder.mask_rules.values, "mask_palette": folder.mask_rules.palette}
    return options | {
        "unlisted": folder.unlisted,
        "malformed": folder.malformed,
        "exif": folder.exif,
        "val_fraction": val_fraction,
        "split_seed": split_seed,
        "num_shards": num_shards,
    }
