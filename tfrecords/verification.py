"""Reading finished splits again, and telling all that is wrong with them.

What is checked: the shards are there with the size and SHA-256 that `SPLIT.json` states; each record has
its place, its checksums, and decodes to an image and a mask of the stated size; labels and mask values
are ids of the split's domain; the index agrees with the records. After damage the check goes on.
Labels without pixels in the mask, or pixels without a label, are no damage but counted.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID
from tfseg.data.records import (
    CHECKSUM_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    RecordInfo,
    Split,
    frame_damage,
)
from tfseg.errors import InputError

from .images import check_stored
from .masks import check_stored_mask, mask_values
from .pool import run_tasks
from .shards import sha256_of


@dataclass(frozen=True)
class Damage:
    """Something that is wrong.

    Attributes:
        file: name of the file.
        record: number of the record within its shard, or None if it is the file as such.
        message: what is wrong.
    """

    file: str
    record: int | None
    message: str

    def __str__(self) -> str:
        """One line for people."""
        at = "" if self.record is None else f", record {self.record}"
        return f"{self.file}{at}: {self.message}"


@dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
        name: of the split.
        damage: all that is wrong.
        images: records read without damage.
        masks: of these, how many have a mask.
        images_per_class: of these, how many have the label, by class name.
        sizes: of these, how many are of each (height, width).
        labels_differ: of these, how many have a mask whose classes are not the labels.
    """

    name: str
    damage: list[Damage] = field(default_factory=list)
    images: int = 0
    masks: int = 0
    images_per_class: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    labels_differ: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "whole": not self.damage,
            "images": self.images,
            "masks": self.masks,
            "images_per_class": self.images_per_class,
            "sizes": {f"{height}x{width}": count for (height, width), count in sorted(self.sizes.items())},
            "labels_differ_from_mask": self.labels_differ,
            "damage": [vars(damage) for damage in self.damage],
        }


@dataclass(frozen=True)
class _ShardTask:
    path: Path
    sha256: str
    size: int
    infos: tuple[RecordInfo, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class _ShardResult:
    damage: list[Damage]
    whole: list[tuple[RecordInfo, bool]]


def verify_split(data_dir: str | os.PathLike[str], split: str, workers: int = 1) -> SplitReport:
    """Checks one split.

    Args:
        data_dir: its folder.
        split: its name.
        workers: number of processes.

    Returns:
        What was found; damage is reported, not raised.
    """
    data_dir, report = Path(data_dir), SplitReport(split)
    try:
        index = Split.load_index(data_dir, split)
    except InputError as error:
        report.damage.append(Damage(f"{split}.json", None, str(error)))
        return report
    report.damage += _index_damage(index)
    tasks = _tasks(index)
    sizes = [len(task.infos) for task in tasks]
    results = run_tasks(_verify_shard, tasks, workers, f"verifying {split}", " images", sizes, [__name__])
    per_label: Counter[int] = Counter()
    for result in results:
        report.damage += result.damage
        for info, labels_differ in result.whole:
            report.images += 1
            report.masks += info.has_mask
            report.sizes[info.height, info.width] += 1
            report.labels_differ += labels_differ
            per_label.update(info.labels)
    ids = index.label_map.ids(index.domain)
    report.images_per_class = {index.label_map.label(label).name: per_label[label] for label in ids}
    return report


def unfinished(data_dir: str | os.PathLike[str], splits: list[str]) -> list[Damage]:
    """Shards in a folder that belong to no finished split."""
    shards = sorted(path.name for path in Path(data_dir).glob("*-[0-9]*-of-[0-9]*.tfrecord"))
    return [
        Damage(name, None, "belongs to no finished split: there is no index of that name")
        for name in shards
        if name.rsplit("-", 3)[0] not in splits
    ]


def _tasks(index: Split) -> list[_ShardTask]:
    infos: list[list[RecordInfo]] = [[] for _ in index.shards]
    for info in index.infos:
        infos[info.shard].append(info)
    ids = index.label_map.ids(index.domain)
    return [
        _ShardTask(
            path=index.data_dir / name,
            sha256=index.summary["sha256"][name],
            size=index.summary["bytes"][name],
            infos=tuple(infos[number]),
            ids=ids,
        )
        for number, name in enumerate(index.shards)
    ]


def _index_damage(index: Split) -> Iterator[Damage]:
    name = f"{index.name}.json"
    for damage in index.count_damage():
        yield Damage(name, None, damage)
    listed = set(index.shards)
    for path in sorted(index.data_dir.glob(f"{index.name}-[0-9]*-of-[0-9]*.tfrecord")):
        if path.name not in listed:
            yield Damage(path.name, None, f"is not listed in {name}")


def _verify_shard(task: _ShardTask) -> _ShardResult:
    name, damage, whole = task.path.name, [], []
    if not task.path.is_file():
        return _ShardResult([Damage(name, None, f"is missing, and {len(task.infos)} records with it")], [])
    size = task.path.stat().st_size
    if size != task.size:
        damage.append(Damage(name, None, f"has {size} bytes, the index says {task.size}"))
    elif sha256_of(task.path) != task.sha256:
        damage.append(Damage(name, None, "its SHA-256 is not the one in the index"))
    if not damage and not _checksums_hold(task):
        damage.append(Damage(name, None, "TensorFlow does not read from it the records of the index"))
    records = _read_records(task)
    for number, (info, found) in enumerate(zip(task.infos, records, strict=True)):
        try:
            if isinstance(found, str):
                raise InputError(found)
            whole.append((info, _check_record(found, info, task.ids)))
        except InputError as error:
            damage.append(Damage(name, number, f"image {info.image_id}: {error}"))
    return _ShardResult(damage, whole)


def _checksums_hold(task: _ShardTask) -> bool:
    # Whether TensorFlow, which tests the checksums, reads just the records of the index.
    offset, expected = 0, iter(task.infos)
    try:
        for record in tf.data.TFRecordDataset(os.fspath(task.path)).as_numpy_iterator():
            info = next(expected, None)
            if info is None or (offset, len(record)) != (info.offset, info.length):
                return False
            offset += len(record) + FRAME_BYTES
    except tf.errors.OpError:
        return False
    return next(expected, None) is None


def _read_records(task: _ShardTask) -> Iterator[bytes | str]:
    # Each record, or what is wrong with it. One bad record ends TensorFlow's reading of a file, so
    # each is read on its own, from the place that the index gives.
    with open(task.path, "rb") as shard:
        for info in task.infos:
            shard.seek(info.offset)
            frame = shard.read(info.length + FRAME_BYTES)
            yield frame_damage(frame, info) or frame[HEADER_BYTES:-CHECKSUM_BYTES]


def _check_record(serialized: bytes, info: RecordInfo, ids: tuple[int, ...]) -> bool:
    # Raises InputError on damage; returns whether labels and mask differ.
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise InputError(f"is no tf.Example ({error})") from error
    texts, numbers = _values(features)
    stated = {
        "id": (texts["image/id"].decode(errors="replace"), info.image_id),
        "labels": (numbers["image/labels"], list(info.labels)),
        "has a mask": ("mask/encoded" in texts, info.has_mask),
        "size": (numbers["image/height"] + numbers["image/width"], [info.height, info.width]),
    }
    for what, (found, listed) in stated.items():
        if found != listed:
            raise InputError(f"{what}: the record says {found}, the index {listed}")
    image_format, height, width = check_stored(texts["image/encoded"], "its image")
    if (height, width) != (info.height, info.width):
        raise InputError(f"its image is {width}x{height}, not {info.width}x{info.height} (width x height)")
    if image_format.encode() != texts["image/format"]:
        raise InputError(f"its image is a {image_format}, the record says {texts['image/format']!r}")
    labels = set(info.labels)
    if list(info.labels) != sorted(labels) or not labels <= set(ids):
        raise InputError(f"labels {list(info.labels)}: must be ascending ids of the split's domain")
    if not info.has_mask:
        return False
    mask = check_stored_mask(texts["mask/encoded"], "its mask", ids, height, width)
    return mask_values(mask) - {BACKGROUND_ID, IGNORE_ID} != labels


def _values(features: Any) -> tuple[dict[str, bytes], dict[str, list[int]]]:
    texts, numbers = {}, {}
    for name in ("image/encoded", "image/format", "image/filename", "image/id", "mask/encoded"):
        if name in features:
            if len(features[name].bytes_list.value) != 1:
                raise InputError(f"the feature {name} must be one string")
            texts[name] = features[name].bytes_list.value[0]
        elif name != "mask/encoded":
            raise InputError(f"the feature {name} is missing")
    for name in ("image/height", "image/width", "image/labels"):
        numbers[name] = list(features[name].int64_list.value) if name in features else []
    return texts, numbers
