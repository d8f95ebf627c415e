"""Records: one image with its labels and mask as a tf.Example, and a finished split of them.

A split is a set of TFRecord shards and a `SPLIT.json` that is written last: its presence says that
the split is whole, and its index lets a reader fetch any one record without reading the others.
"""

import json
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from tfseg.commands import called
from tfseg.data.labels import DOMAINS, LabelMap
from tfseg.errors import InputError, RecordError

if TYPE_CHECKING:
    import tensorflow as tf

CHECKSUM_BYTES = 4
HEADER_BYTES = 8 + CHECKSUM_BYTES
"""A TFRecord starts with its length (uint64) and the length's checksum (uint32)."""
FRAME_BYTES = HEADER_BYTES + CHECKSUM_BYTES
"""What TFRecord adds to each record: the header, and the data's checksum behind."""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset.

    Attributes:
        image: the bytes of a JPEG or PNG file that Pillow and TensorFlow decode to the same pixels.
        format: "jpeg" or "png".
        filename: the file's name in its dataset.
        image_id: the image's id in its dataset.
        height: in pixels.
        width: in pixels.
        labels: label ids present, ascending.
        mask: an 8-bit one-channel PNG of the image's size, pixel = label id (0 background,
            255 ignore); None when there is none.
        notes: what a builder did to the files; counted in the split's summary, not stored.
    """

    image: bytes
    format: str
    filename: str
    image_id: str
    height: int
    width: int
    labels: tuple[int, ...]
    mask: bytes | None
    notes: tuple[str, ...] = ()


class RecordInfo(NamedTuple):
    """Where a record stands and what is known of it without reading it.

    Attributes:
        shard: number of the shard.
        offset: position of the TFRecord header in the shard, bytes.
        length: of the serialized Example, bytes.
        image_id: as `ImageRecord`.
        labels: as `ImageRecord`.
        has_mask: whether there is a mask.
        height: in pixels.
        width: in pixels.
    """

    shard: int
    offset: int
    length: int
    image_id: str
    labels: tuple[int, ...]
    has_mask: bool
    height: int
    width: int


def serialize(record: ImageRecord) -> bytes:
    """The record as a serialized tf.Example, the same bytes for the same record."""
    import tensorflow as tf

    def text(value: bytes) -> "tf.train.Feature":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def numbers(*values: int) -> "tf.train.Feature":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    values: dict[str, Any] = {
        "image/encoded": text(record.image),
        "image/format": text(record.format.encode()),
        "image/filename": text(record.filename.encode()),
        "image/id": text(record.image_id.encode()),
        "image/height": numbers(record.height),
        "image/width": numbers(record.width),
        "image/labels": numbers(*record.labels),
    }
    if record.mask is not None:
        values["mask/encoded"] = text(record.mask)
    example = tf.train.Example(features=tf.train.Features(feature=values))
    # A protobuf map has no order of its own: without this the bytes may differ from run to run.
    return example.SerializeToString(deterministic=True)


def parse(serialized: "tf.Tensor") -> dict[str, "tf.Tensor"]:
    """Takes one serialized record apart, as graph code.

    Args:
        serialized: scalar string.

    Returns:
        Scalars `image`, `format`, `filename`, `id`, `mask` (strings; `mask` empty where there is
        none), `height`, `width` (int64), and `labels` int64 [K]. Image and mask are still encoded.
    """
    import tensorflow as tf

    features = tf.io.parse_single_example(serialized, _features())
    parsed = {name.removeprefix("image/"): value for name, value in features.items()}
    return {"image": parsed.pop("encoded"), "mask": parsed.pop("mask/encoded"), **parsed}


def frame_damage(frame: bytes, info: RecordInfo) -> str:
    """What is wrong with the bytes of one TFRecord; empty if it is whole.

    Args:
        frame: what stands at the place of the record, at most its length and `FRAME_BYTES`.
        info: the record by the index.
    """
    if len(frame) < info.length + FRAME_BYTES:
        return f"the file ends within it, before byte {info.offset + info.length + FRAME_BYTES}"
    if struct.unpack_from("<Q", frame)[0] != info.length:
        return f"no record of {info.length} bytes starts at byte {info.offset}"
    bounds = ((0, HEADER_BYTES - CHECKSUM_BYTES), (HEADER_BYTES, len(frame) - CHECKSUM_BYTES))
    for begin, end in bounds:
        if struct.unpack_from("<I", frame, end)[0] != _masked_crc(frame[begin:end]):
            return (
                f"its checksum is wrong: bytes {info.offset} to {info.offset + len(frame) - 1} "
                "are not what was written"
            )
    return ""


def _masked_crc(data: bytes) -> int:
    # CRC32C, rotated and shifted by a constant as TFRecord has it.
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shard_name(split: str, index: int, count: int) -> str:
    """File name of one shard, as in `train-00003-of-00020.tfrecord`."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


@dataclass(frozen=True)
class Split:
    """A finished split on disk, read record by record.

    Attributes:
        data_dir: the folder.
        name: of the split.
        domain: "source" or "target".
        label_map: the categories of both domains.
        shards: file names of the shards, by shard number.
        infos: one `RecordInfo` a record, in the order of the split.
        summary: everything in `SPLIT.json` but the records.
    """

    data_dir: Path
    name: str
    domain: str
    label_map: LabelMap
    shards: tuple[str, ...]
    infos: tuple[RecordInfo, ...]
    summary: dict[str, Any] = field(repr=False)
    _descriptors: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def load(cls, data_dir: str | os.PathLike[str], split: str) -> "Split":
        """Reads `SPLIT.json` and checks that each shard is there with its recorded size.

        Raises:
            InputError: the split is not there, not whole, its JSON is damaged, or an entry of it does not
                fit its shard, the label map or the counts.
        """
        data_dir = Path(data_dir)
        loaded = cls.load_index(data_dir, split)
        for shard in loaded.shards:
            path, expected = data_dir / shard, loaded.summary["bytes"][shard]
            if not path.is_file():
                raise InputError(f"{path}: the shard is missing; build the split again")
            if (size := path.stat().st_size) != expected:
                raise InputError(
                    f"{path}: has {size} bytes, {split}.json says {expected}; build the split again"
                )
        for index, info in enumerate(loaded.infos):
            if damage := loaded.entry_damage(info):
                raise InputError(
                    f"{data_dir / f'{split}.json'}: record {index} ({info.image_id}): {damage}; "
                    "build the split again"
                )
        for damage in loaded.count_damage():
            raise InputError(f"{data_dir / f'{split}.json'}: {damage}; build the split again")
        return loaded

    @classmethod
    def load_index(cls, data_dir: str | os.PathLike[str], split: str) -> "Split":
        """Like `load`, without a look at the shards.

        Raises:
            InputError: `SPLIT.json` is not there or is damaged.
        """
        path = Path(data_dir) / f"{split}.json"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: there is no such folder") from error
            raise InputError(
                f"{path}: no finished split {split!r} there ({error.strerror}); "
                f"finished are: {', '.join(finished_splits(data_dir)) or 'none'}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON ({error})") from error
        try:
            infos = tuple(_info(values) for values in summary.pop("records"))
            shards = tuple(sorted(summary["sha256"]))
            label_map = LabelMap.from_dict(summary["label_map"], where=f"{path}: label_map")
            names = tuple(shard_name(split, i, len(shards)) for i in range(len(shards)))
            if shards != names or tuple(sorted(summary["bytes"])) != names:
                raise ValueError("sha256 and bytes do not list the shards")
            if any(not 0 <= info.shard < len(shards) for info in infos):
                raise ValueError("a record stands in a shard that is not listed")
            if not isinstance(summary.get("options", {}), dict):
                raise ValueError("options must be an object")
            if summary["domain"] not in DOMAINS:
                raise ValueError(f"domain {summary['domain']!r}")
            return cls(Path(data_dir), split, summary["domain"], label_map, shards, infos, summary)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: is not the index of a split ({type(error).__name__}: {error}); "
                "build the split again"
            ) from error

    def entry_damage(self, info: RecordInfo) -> str:
        """What of an index entry fits neither its shard nor the label map; empty if all does."""
        highest = self.label_map.num_labels
        strange = [label for label in info.labels if not 1 <= label <= highest]
        if strange:
            return f"label id {strange[0]}: the label map has the ids 1 to {highest}"
        if list(info.labels) != sorted(self._own_ids.intersection(info.labels)):
            return f"labels {list(info.labels)}: must be ascending ids of the {self.domain} domain"
        if not info.height or not info.width:
            return f"its image is {info.width}x{info.height}"
        size, end = self.summary["bytes"][self.shards[info.shard]], info.offset + info.length + FRAME_BYTES
        if end > size:
            return f"ends at byte {end} of a shard of {size}"
        return ""

    def count_damage(self) -> Iterator[str]:
        """Yields where the index's entries, all in all, are not what its counts say."""
        found = {"images_kept": len(self.infos), "pairs": sum(len(info.labels) for info in self.infos)}
        for key, number in found.items():
            if self.summary.get(key, number) != number:
                yield f"says {key} {self.summary[key]}, its records give {number}"
        for image, number in Counter(info.image_id for info in self.infos).items():
            if number > 1:
                yield f"the image {image} has more than one record"

    @cached_property
    def _own_ids(self) -> frozenset[int]:
        return frozenset(self.label_map.ids(self.domain))

    def __len__(self) -> int:
        """Number of records (images)."""
        return len(self.infos)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All (record number, label id) of the split: an image with K labels gives K pairs."""
        return tuple((i, label) for i, info in enumerate(self.infos) for label in info.labels)

    @property
    def known_labels(self) -> tuple[int, ...]:
        """Ids of the labels that an image does not show unless its record lists them, ascending.

        They are those of the split's own domain, and those of the other domain only if the builder dropped
        all images that show one (`options.exclude_other`); else an image may show them unlisted.
        """
        excluded = self.summary.get("options", {}).get("exclude_other", False)
        domains = DOMAINS if excluded is True else (self.domain,)
        return tuple(sorted(i for domain in domains for i in self.label_map.ids(domain)))

    def require_labels(self, of_model: LabelMap) -> None:
        """Refuses records whose labels are not a network's; the maps' names and aliases may differ.

        Args:
            of_model: What the network was trained on.

        Raises:
            InputError: If ids, names or domains differ.
        """
        ours, theirs = (
            [(label.id, label.name, label.domain) for label in label_map.labels]
            for label_map in (self.label_map, of_model)
        )
        if ours != theirs:
            raise InputError(
                f"split {self.name} in {self.data_dir} has the label map {self.label_map.name!r}, the model "
                f"{of_model.name!r} with other labels; needed are records of the model's map"
            )

    def relabelled(self, label_map: LabelMap) -> "Split":
        """The same records under a label map that goes on from theirs; its open files are its own."""
        return replace(self, label_map=label_map, _descriptors={}, _lock=threading.Lock())

    def read(self, index: int) -> bytes:
        """The serialized Example of record `index`; any number of threads may read at once.

        TFRecord's two checksums are tested at every read: 3 microseconds for 100 kB.

        Raises:
            RecordError: the shard is missing, cut short, or the record in it is damaged.
        """
        info = self.infos[index]
        where = f"{self.data_dir / self.shards[info.shard]}: record {index} ({info.image_id})"
        try:
            frame = os.pread(self._descriptor(info.shard), info.length + FRAME_BYTES, info.offset)
        except OSError as error:
            raise RecordError("cannot be read", f"{where}: cannot be read ({error.strerror})") from error
        if damage := frame_damage(frame, info):
            raise RecordError(
                "damaged bytes",
                f"{where}: {damage}; build the split again "
                f"({called('tfrecords.verify')} {self.data_dir} lists all damage)",
            )
        return frame[HEADER_BYTES:-CHECKSUM_BYTES]

    def _descriptor(self, shard: int) -> int:
        with self._lock:
            if shard not in self._descriptors:
                path = self.data_dir / self.shards[shard]
                try:
                    self._descriptors[shard] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise RecordError(
                        "cannot be read", f"{path}: cannot be read ({error.strerror})"
                    ) from error
            return self._descriptors[shard]

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)


def index_json(summary: dict[str, Any], infos: list[RecordInfo]) -> str:
    """The text of `SPLIT.json`: the summary, then one compact line a record."""
    summary = {**summary, "record_fields": RecordInfo._fields}
    head = json.dumps(summary, indent=2)
    lines = ",\n".join(json.dumps(info, separators=(",", ":")) for info in infos)
    return f'{head[:-2]},\n  "records": [\n{lines}\n  ]\n}}\n'


def _is_index(path: Path) -> bool:
    if not path.is_file():
        return False
    head = f'{{\n  "split": {json.dumps(path.stem)}'.encode()
    with open(path, "rb") as file:
        return file.read(len(head)) == head


def _info(values: list[Any]) -> RecordInfo:
    shard, offset, length, image_id, labels, has_mask, height, width = values
    numbers = (shard, offset, length, height, width, *labels)
    # Not isinstance, for which true is a number.
    whole = all(type(number) is int and number >= 0 for number in numbers) and isinstance(labels, list)
    if not whole or not isinstance(image_id, str) or not isinstance(has_mask, bool):
        raise ValueError(f"bad record line {values}")
    return RecordInfo(shard, offset, length, image_id, tuple(labels), has_mask, height, width)


def finished_splits(data_dir: str | os.PathLike[str]) -> list[str]:
    """Names of the splits in a folder, by their `SPLIT.json`, sorted."""
    return sorted(path.stem for path in Path(data_dir).glob("*.json") if _is_index(path))


def _features() -> dict[str, Any]:
    import tensorflow as tf

    return {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/format": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
        "image/id": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
        "image/labels": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
        "mask/encoded": tf.io.FixedLenFeature([], tf.string, default_value=""),
    }
