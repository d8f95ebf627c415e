"""Builds records from a folder in VOC's layout, one domain of a pair of datasets.

Labels come from the XML annotations or from the masks; see `tfrecords.voc`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfrecords.pool import default_workers
from tfseg import cli
from tfseg.data.labels import Domain, LabelMap

EXAMPLES = (
    "--voc_root=VOCdevkit/VOC2012 --split=train_aug --label_map=configs/labels/voc20_coco60.json "
    "--output_dir=records --output_split=target_train",
    "--voc_root=VOCdevkit/VOC2012 --split=val --label_map=configs/labels/voc20_coco60.json "
    "--output_dir=records --output_split=target_val",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocOptions:
    """What is built from which folder; each field is a flag."""

    voc_root: str = cli.flag(
        "Folder with JPEGImages, Annotations and ImageSets/Segmentation.", exists="folder"
    )
    split: str = cli.flag("Name of ImageSets/Segmentation/SPLIT.txt.")
    label_map: str = cli.flag("Label map (JSON).", exists="file")
    output_dir: str = cli.flag("Folder for the shards.")
    output_split: str = cli.flag("Name of the split to write; empty: as --split.", default="")
    masks: str = cli.flag(
        "Folder of the masks within --voc_root: PNG files with a palette or grey values, pixel = label id. "
        "An image without a file there has no mask. Empty: no masks.",
        default="SegmentationClassAug",
    )
    domain: Domain = cli.flag("Domain that the images belong to.", default="target")
    labels_from: Literal["annotations", "masks"] = cli.flag(
        "Image labels from the XML files or the masks.", default="annotations"
    )
    num_shards: int = cli.flag("Shards to write; 0: one per 128 images.", default=0)
    workers: int = cli.flag("Processes.", default=default_workers(), advanced=True, lower=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.build_voc", __doc__, VocOptions, _run, argv, EXAMPLES)


def _run(options: VocOptions) -> None:
    from tfrecords import voc
    from tfrecords.summary import split_table

    folder = voc.VocFolder(
        root=Path(options.voc_root),
        label_map=LabelMap.load(options.label_map),
        domain=options.domain,
        masks=options.masks,
        labels_from=options.labels_from,
    )
    summary = voc.build(
        folder=folder,
        split=options.split,
        output_dir=options.output_dir,
        output_split=options.output_split,
        num_shards=options.num_shards,
        workers=options.workers,
    )
    print(split_table(summary))


if __name__ == "__main__":
    sys.exit(main())
