"""Builds records from a COCO folder, one domain of a pair of datasets.

Images that hold a category of the other domain are dropped whole; see `tfrecords.coco` for the rules. With
--domain=target boxes are enough: the labels of an image are the categories of its boxes.
"""

import dataclasses
import sys
from collections.abc import Sequence

from tfseg import beam, cli
from tfseg.data.labels import Domain, LabelMap
from tfseg.files import require_output_folder

from .choices import EmptyRegions, Unlisted
from .options import BuilderOptions

EXAMPLES = (
    "--annotations=instances_train2017.json --images=train2017 "
    "--label_map=tfseg:labels/voc20_coco60.json --split=source_train --output_dir=records",
    "--annotations=instances_val2017.json --images=val2017 "
    "--label_map=tfseg:labels/voc20_coco60.json --split=source_val --output_dir=records --num_shards=4",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoOptions:
    """What is built from which files; each field is a flag."""

    annotations: str = cli.flag("COCO instances file (JSON).", exists="file")
    images: str = cli.flag("Folder of the images.", exists="folder")
    label_map: str = cli.flag("Label map (JSON).", exists="file")
    split: str = cli.flag("Name of the split to write.")
    output_dir: str = cli.flag("Folder for the shards.")
    domain: Domain = cli.flag("Domain that the images belong to.", default="source")
    exclude_target_images: bool = cli.flag(
        "Drop each image with an annotation, crowd included, of a category of the other domain. If false "
        "such images are kept, and the pixels of those categories are 255 (ignored).",
        default=True,
    )
    min_area: float = cli.flag(
        "Least area, pixels, with which an annotation makes its category a label of the image.",
        default=0.0,
        lower=0.0,
    )
    unlisted: Unlisted = cli.flag(
        "Categories with annotations that the label map does not list: refuse the file, paint them 255, or "
        "leave them out.",
        default="error",
    )
    empty_regions: EmptyRegions = cli.flag(
        "Categories of which an image has no pixel (polygons outside, or of no area): no label, or a label.",
        default="drop",
        advanced=True,
    )
    builder: BuilderOptions = cli.group(BuilderOptions)
    runner_flags: tuple[str, ...] = cli.words("[-- RUNNER_FLAG ...]")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.build_coco", __doc__, CocoOptions, _run, argv, EXAMPLES)


def _run(options: CocoOptions) -> None:
    with cli.working("loading TensorFlow"):
        from . import coco
        from .summary import split_table

    runner = beam.runner_flags(options.builder.runner, options.runner_flags)
    require_output_folder(options.output_dir, "--output_dir=")
    summary = coco.build(
        annotations=options.annotations,
        images_dir=options.images,
        label_map=LabelMap.load(options.label_map),
        rules=coco.Rules(
            domain=options.domain,
            exclude_other=options.exclude_target_images,
            min_area=options.min_area,
            unlisted=options.unlisted,
            malformed=options.builder.malformed,
            exif=options.builder.exif,
            empty_regions=options.empty_regions,
        ),
        split=options.split,
        output_dir=options.output_dir,
        num_shards=options.builder.num_shards,
        workers=options.builder.workers,
        runner=runner,
    )
    print(split_table(summary))


if __name__ == "__main__":
    sys.exit(main())
