"""Writing a split: records into shards, in parallel, the same bytes for the same input, all or nothing.

The shards are written in a hidden folder beside their place. Only when all are whole are they moved in,
in this order: the old `SPLIT.json` goes, the shards come, shards of an older build go, the new
`SPLIT.json` comes. A failed build therefore leaves an earlier split as it was, and a kill at any
moment leaves either a whole split or none, never a mixture that is taken for one.
"""

import contextlib
import hashlib
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf

from tfseg import beam
from tfseg.data.labels import Domain, LabelMap
from tfseg.data.records import FRAME_BYTES, ImageRecord, RecordInfo, index_json, serialize, shard_name
from tfseg.errors import InputError
from tfseg.files import refusal, require_output_folder, sync_directory
from tfseg.folders import remove_dead, workspace

from .checks import MAX_TOLD
from .pool import run_tasks

Item = TypeVar("Item")

IMAGES_PER_SHARD = 128
"""Of this the number of shards follows, where none is given."""
MAX_SHARDS = 99_999
VERIFY_JSON = "verify.json"
"""Where `tfrecords.verify` writes; a new split makes it out of date."""


@dataclass(frozen=True)
class SplitHead:
    """What a builder knows of a split before its records are made.

    Attributes:
        name: of the split.
        domain: "source" or "target".
        label_map: the categories of both domains.
        images_seen: images that were looked at.
        images_dropped: how many were left out, by reason.
        options: what of the builder's flags shapes the content.
        notes: how often something was done to what was given, by what it was; records add their own.
        skip_malformed: whether an image of which no record can be made is left out and counted, not refused.
    """

    name: str
    domain: Domain
    label_map: LabelMap
    images_seen: int
    images_dropped: dict[str, int]
    options: dict[str, Any]
    notes: dict[str, int] = field(default_factory=dict)
    skip_malformed: bool = False


@dataclass(frozen=True)
class _ShardTask:
    path: Path
    number: int
    items: tuple[Any, ...]
    make_record: Callable[[Any], ImageRecord]
    skip_malformed: bool


@dataclass(frozen=True)
class _ShardResult:
    infos: list[RecordInfo]
    notes: Counter[str]
    skipped: list[str]
    sha256: str
    size: int


def check_split_name(name: str) -> str:
    """Returns `name` if it can be part of file names.

    Raises:
        InputError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or f"{name}.json" == VERIFY_JSON:
        raise InputError(
            f"split name {name!r}: letters, digits, '_', '-' and '.' are allowed, and 'verify' is taken"
        )
    return name


def write_split(
    output_dir: str | os.PathLike[str],
    head: SplitHead,
    items: Sequence[Item],
    make_record: Callable[[Item], ImageRecord],
    num_shards: int = 0,
    workers: int = 1,
    runner: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds a split and puts it into `output_dir`.

    Args:
        output_dir: folder of the split; made if absent. A finished split of the same name is replaced.
        head: what is known so far.
        items: one for each record, in the order of the records.
        make_record: turns an item into its record. Runs in the workers, so it must be a module's function
            or a method of an object that can be pickled.
        num_shards: number of shards, 0 for one per `IMAGES_PER_SHARD` records.
        workers: number of processes; does not change a byte.
        runner: flags of an Apache Beam runner, whose workers then make the shards; they do not change a
            byte either. All workers must see `output_dir` and what `make_record` reads.

    Returns:
        The summary: what `SPLIT.json` holds, less the records.

    Raises:
        InputError: there is nothing to write, or a record could not be made.
    """
    output_dir = Path(output_dir)
    check_split_name(head.name)
    count = _shard_count(head, items, num_shards)
    require_output_folder(output_dir, "--output_dir=")
    bounds = [len(items) * i // count for i in range(count + 1)]
    shards = [tuple(items[begin:end]) for begin, end in itertools.pairwise(bounds)]
    remove_dead(output_dir, r"\..+\.building", r".+-\d{5}-of-\d{5}\.tfrecord|.+\.json")
    with workspace(output_dir / f".{head.name}.building") as building:
        paths = [building / shard_name(head.name, i, count) for i in range(count)]
        tasks = [
            _ShardTask(path, i, shard, make_record, head.skip_malformed)
            for i, (path, shard) in enumerate(zip(paths, shards, strict=True))
        ]
        if runner:
            results = [*beam.run_tasks(_write_shard, tasks, runner, building)]
        else:
            sizes = [len(shard) for shard in shards]
            results = [*run_tasks(_write_shard, tasks, workers, head.name, " images", sizes, [__name__])]
        _tell_skipped(head.name, [message for result in results for message in result.skipped])
        summary = _summary(head, [task.path.name for task in tasks], results)
        infos = [info for result in results for info in result.infos]
        _refuse_duplicates(head.name, infos)
        _write_synced(building / f"{head.name}.json", index_json(summary, infos).encode())
        _publish(building, output_dir, head.name, list(summary["sha256"]))
    return summary


def _shard_count(head: SplitHead, items: Sequence[Item], num_shards: int) -> int:
    """Returns the number of shards after refusing a split of nothing and strange numbers."""
    if not items:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in head.images_dropped.items())
        raise InputError(
            f"split {head.name}: no image is left of {head.images_seen} ({reasons or 'none seen'})"
        )
    if not 0 <= num_shards <= MAX_SHARDS:
        raise InputError(f"--num_shards={num_shards}: must be 1 to {MAX_SHARDS}, or 0 for as many as fit")
    return num_shards or -(-len(items) // IMAGES_PER_SHARD)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_shard(task: _ShardTask) -> _ShardResult:
    infos: list[RecordInfo] = []
    notes: Counter[str] = Counter()
    skipped: list[str] = []
    offset = 0
    with _named_errors(task.path), tf.io.TFRecordWriter(os.fspath(task.path)) as writer:
        for item in task.items:
            try:
                record = task.make_record(item)
            except InputError as error:
                if not task.skip_malformed:
                    raise
                skipped.append(str(error))
                continue
            notes.update(record.notes)
            serialized = serialize(record)
            writer.write(serialized)
            infos.append(
                RecordInfo(
                    shard=task.number,
                    offset=offset,
                    length=len(serialized),
                    image_id=record.image_id,
                    labels=record.labels,
                    has_mask=record.mask is not None,
                    height=record.height,
                    width=record.width,
                )
            )
            offset += len(serialized) + FRAME_BYTES
    _sync_file(task.path)
    size = task.path.stat().st_size
    if size != offset:
        raise InputError(f"{task.path}: has {size} bytes after writing {offset}; is the disk full?")
    return _ShardResult(infos, notes, skipped, sha256_of(task.path), size)


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    # TensorFlow's own file errors (disk full, no permission) as one of ours.
    try:
        yield
    except tf.errors.OpError as error:
        reason = refusal(error, path) or f"{path}: cannot be written ({error.message})"
        raise InputError(reason) from error


def _summary(head: SplitHead, names: list[str], results: list[_ShardResult]) -> dict[str, Any]:
    infos = [info for result in results for info in result.infos]
    skipped = sum(len(result.skipped) for result in results)
    if not infos:
        raise InputError(f"split {head.name}: no image is left, no record could be made of {skipped}")
    per_class = {label: 0 for label in head.label_map.ids(head.domain)}
    for info in infos:
        for label in info.labels:
            per_class[label] += 1
    notes = sum((result.notes for result in results), Counter(head.notes))
    return {
        "split": head.name,
        "domain": head.domain,
        "label_map": head.label_map.to_dict(),
        "images_seen": head.images_seen,
        "images_kept": len(infos),
        "images_dropped": head.images_dropped | ({"no record could be made": skipped} if skipped else {}),
        # Absent where nothing was done, as in splits of older versions.
        **({"notes": dict(sorted(notes.items()))} if notes else {}),
        "images_without_label": sum(not info.labels for info in infos),
        "masks": sum(info.has_mask for info in infos),
        "pairs": sum(per_class.values()),
        "pairs_per_class": {head.label_map.label(label).name: n for label, n in per_class.items()},
        "sha256": {name: result.sha256 for name, result in zip(names, results, strict=True)},
        "bytes": {name: result.size for name, result in zip(names, results, strict=True)},
        "options": head.options,
    }


def _tell_skipped(split: str, messages: list[str]) -> None:
    for message in messages[:MAX_TOLD]:
        print(f"left out of {split}: {message}", file=sys.stderr)
    if len(messages) > MAX_TOLD:
        print(f"left out of {split}: {len(messages) - MAX_TOLD} more", file=sys.stderr)


def _refuse_duplicates(split: str, infos: list[RecordInfo]) -> None:
    seen: set[str] = set()
    for info in infos:
        if info.image_id in seen:
            raise InputError(f"split {split}: the image {info.image_id} is listed twice")
        seen.add(info.image_id)


def _publish(building: Path, output_dir: Path, split: str, names: list[str]) -> None:
    (output_dir / f"{split}.json").unlink(missing_ok=True)
    (output_dir / VERIFY_JSON).unlink(missing_ok=True)
    sync_directory(output_dir)
    for name in names:
        os.replace(building / name, output_dir / name)
    shard = re.compile(re.escape(split) + r"-\d{5}-of-\d{5}\.tfrecord")
    for path in output_dir.iterdir():
        if shard.fullmatch(path.name) and path.name not in names:
            path.unlink()
    sync_directory(output_dir)
    os.replace(building / f"{split}.json", output_dir / f"{split}.json")
    sync_directory(output_dir)


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync_file(path)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
