"""Builds records from a folder in VOC's layout, one domain of a pair of datasets.

Labels come from the XML annotations or from the masks; see `tfrecords.voc`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import beam, cli
from tfseg.data.labels import Domain, LabelMap
from tfseg.files import require_output_folder

from .choices import LabelsFrom, MaskIds, MaskPalette, Unlisted
from .options import BuilderOptions

EXAMPLES = (
    "--voc_root=VOCdevkit/VOC2012 --split=train_aug --label_map=tfseg:labels/voc20_coco60.json "
    "--output_dir=records --output_split=target_train",
    "--voc_root=VOCdevkit/VOC2012 --split=val --label_map=tfseg:labels/voc20_coco60.json "
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
    labels_from: LabelsFrom = cli.flag("Image labels from the XML files or the masks.", default="annotations")
    unlisted: Unlisted = cli.flag(
        "Classes that the label map does not list: refuse them; or give no label, and 255 (ignore) or 0 "
        "(background) where masks hold VOC's own indices.",
        default="error",
    )
    mask_ids: MaskIds = cli.flag(
        "What the masks hold: the label map's ids, or VOC's own indices, which are mapped by class name. "
        "auto: the latter with --unlisted=ignore or background, if the domain's labels are classes of VOC.",
        default="auto",
    )
    mask_values: str = cli.flag(
        "What the values of the masks mean, such as 255:cat or 1:cat,2:dog,3:ignore.", default=""
    )
    mask_palette: MaskPalette = cli.flag(
        "Masks with a palette are indices (index) or go by VOC's colours (color, also for RGB); auto: "
        "indices, but VOC's colours in another order are refused.",
        default="auto",
    )
    builder: BuilderOptions = cli.group(BuilderOptions)
    runner_flags: tuple[str, ...] = cli.words("[-- RUNNER_FLAG ...]")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.build_voc", __doc__, VocOptions, _run, argv, EXAMPLES)


def _run(options: VocOptions) -> None:
    with cli.working("loading TensorFlow"):
        from . import voc
        from .masks import parse_mask_values
        from .summary import split_table

    runner = beam.runner_flags(options.builder.runner, options.runner_flags)
    require_output_folder(options.output_dir, "--output_dir=")
    label_map = LabelMap.load(options.label_map)
    folder = voc.VocFolder(
        root=Path(options.voc_root),
        label_map=label_map,
        domain=options.domain,
        masks=options.masks,
        labels_from=options.labels_from,
        unlisted=options.unlisted,
        malformed=options.builder.malformed,
        exif=options.builder.exif,
        mask_ids=options.mask_ids,
        mask_values=parse_mask_values(options.mask_values, label_map, options.domain),
        mask_palette=options.mask_palette,
    )
    summary = voc.build(
        folder=folder,
        split=options.split,
        output_dir=options.output_dir,
        output_split=options.output_split,
        num_shards=options.builder.num_shards,
        workers=options.builder.workers,
        runner=runner,
    )
    print(split_table(summary))


if __name__ == "__main__":
    sys.exit(main())
