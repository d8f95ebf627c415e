"""Reads all splits in a folder again, prints what is in them, and each damage by file and record.

Writes `DIR/verify.json`. Exit status: 0 all whole, 1 damaged, 2 nothing to verify.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfseg import cli
from tfseg.commands import called
from tfseg.data.records import finished_splits
from tfseg.errors import InputError
from tfseg.files import require_output_folder, write_atomic

from .pool import default_workers

if TYPE_CHECKING:
    from .verification import SplitReport

EXAMPLES = ("runs/demo/records", "--workers=1 runs/demo/records")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Which folder is read again; each field is a flag."""

    folder: tuple[str, ...] = cli.words("DIR", at_most=1)
    workers: int = cli.flag("Processes.", default=default_workers(), lower=1)

    def __post_init__(self) -> None:
        """Refuses a call without a folder."""
        if not self.folder:
            raise InputError(f"the folder to verify is wanted: {called('tfrecords.verify')} DIR")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.verify", __doc__, VerifyOptions, _run, argv, EXAMPLES)


def _run(options: VerifyOptions) -> int:
    with cli.working("loading TensorFlow"):
        from .shards import VERIFY_JSON
        from .verification import unfinished, verify_split

    data_dir = Path(options.folder[0])
    if not data_dir.is_dir():
        raise InputError(f"{data_dir}: is not a folder")
    require_output_folder(data_dir, "")
    splits = finished_splits(data_dir)
    damage = unfinished(data_dir, splits)
    if not splits and not damage:
        raise InputError(f"{data_dir}: has no split (NAME.json with its shards NAME-*.tfrecord)")
    reports = [verify_split(data_dir, split, options.workers) for split in splits]
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


def _table(report: "SplitReport") -> str:
    from .summary import class_table

    lines = [f"split {report.name}: {report.images:,} images read, {report.masks:,} with a mask"]
    if report.sizes:
        heights, widths = zip(*report.sizes, strict=True)
        lines.append(
            f"  heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)}, "
            f"{len(report.sizes)} different sizes"
        )
    if report.labels_differ:
        lines.append(f"  {report.labels_differ:,} with a mask whose classes are not the labels (no damage)")
    if report.images and not report.masks:
        lines.append("  no masks: it can be trained on as target, and evaluated by image labels, not by IoU")
    return "\n".join([*lines, "images per class", class_table(report.images_per_class)])


if __name__ == "__main__":
    sys.exit(main())
