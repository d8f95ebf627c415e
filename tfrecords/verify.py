"""Reads all splits in a folder again, prints what is in them, and each damage by file and record.

    python -m tfrecords.verify DIR

Writes `DIR/verify.json`. Exit status: 0 all whole, 1 damaged, 2 nothing to verify.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfrecords.pool import default_workers
from tfrecords.shards import VERIFY_JSON
from tfrecords.summary import class_table
from tfrecords.verification import SplitReport, unfinished, verify_split
from tfseg import cli
from tfseg.data.records import finished_splits
from tfseg.errors import InputError
from tfseg.files import write_atomic

_WORKERS = flags.DEFINE_integer("workers", default_workers(), "Processes.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
    """The command; see the module's docstring."""
    if len(argv) != 2:
        raise InputError("the folder to verify is wanted: python -m tfrecords.verify DIR")
    data_dir = Path(argv[1])
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: is not a folder")
    splits = finished_splits(data_dir)
    damage = unfinished(data_dir, splits)
    if not splits and not damage:
        raise InputError(f"{data_dir}: has no split (NAME.json with its shards NAME-*.tfrecord)")
    reports = [verify_split(data_dir, split, _WORKERS.value) for split in splits]
    for report in reports:
        print(_table(report))
        damage += report.damage
    for entry in damage:
        print(f"damaged: {entry}")
    print(f"{data_dir}: {f'{len(damage)} damages' if damage else 'whole'}")
    content = {
        "whole": not damage,
        "splits": {report.name: report.to_dict() for report in reports},
        "damage": [vars(entry) for entry in damage],
    }
    write_atomic(data_dir / VERIFY_JSON, (json.dumps(content, indent=2) + "\n").encode())
    return 1 if damage else 0


def _table(report: SplitReport) -> str:
    lines = [f"split {report.name}: {report.images:,} images read, {report.masks:,} with a mask"]
    if report.sizes:
        heights, widths = zip(*report.sizes, strict=True)
        lines.append(
            f"  heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)}, "
            f"{len(report.sizes)} different sizes"
        )
    if report.labels_differ:
        lines.append(f"  {report.labels_differ:,} with a mask whose classes are not the labels (no damage)")
    return "\n".join([*lines, "images per class", class_table(report.images_per_class)])


if __name__ == "__main__":
    cli.run(main, max_words=1)
