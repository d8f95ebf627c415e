"""Builds records from a folder of images: class folders, a CSV file of labels, or masks beside the images.

Without further flags each image's label is the folder that it lies in. --csv=FILE names the labels instead,
one `file,label1;label2` a row; --masks=DIR holds a PNG of the same relative path for each image. With
--val_fraction a share of the images becomes a split of its own, of which no image is trained on.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import beam, cli
from tfseg.commands import called
from tfseg.data.labels import Domain, LabelMap
from tfseg.errors import InputError
from tfseg.files import require_output_folder

from .choices import Exif, MaskPalette, Unlisted
from .options import BuilderOptions

EXAMPLES = (
    "--images=photographs --label_map=labels.json --output_dir=records --val_fraction=0.1",
    "--images=photographs --csv=labels.csv --label_map=labels.json --output_dir=records",
    "--images=images --masks=masks --mask_values=1:disk,2:tri --domain=source --label_map=labels.json "
    "--output_dir=records",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """What is built from which folder; each field is a flag."""

    images: str = cli.flag("Folder of the images; hidden files are not taken.", exists="folder")
    label_map: str = cli.flag(f"Label map (JSON); {called('tfrecords.label_map')} makes one.", exists="file")
    output_dir: str = cli.flag("Folder for the shards.")
    domain: Domain = cli.flag("Domain that the images belong to.", default="target")
    csv: str | None = cli.flag(
        "File of labels, a row file,label1;label2 for each image; only these images are taken.",
        default=None,
        exists="file",
    )
    masks: str | None = cli.flag(
        "Folder of the masks: PNG files with a palette or grey values, pixel = label id.",
        default=None,
        exists="folder",
    )
    mask_values: str = cli.flag(
        "What the values of the masks mean instead, such as 1:disk,2:tri or 255:cat.", default=""
    )
    mask_palette: MaskPalette = cli.flag(
        "Masks with a palette are indices (index) or go by VOC's colours (color, also for RGB); auto: "
        "indices, but VOC's colours in another order are refused.",
        default="auto",
    )
    split: str = cli.flag("Name of the split to write; empty: source_train or target_train.", default="")
    val_fraction: float = cli.flag(
        "Share of the images that becomes a split of its own; equal files go to one side.",
        default=0.0,
        lower=0.0,
        upper=0.99,
    )
    val_split: str = cli.flag("Its name; empty: source_val or target_val.", default="")
    split_seed: int = cli.flag("Seed that chooses its images.", default=0, lower=0)
    unlisted: Unlisted = cli.flag(
        "Labels that the label map does not list: refuse them, or leave them out (ignore, background), and "
        "images without another.",
        default="error",
    )
    exif: Exif | None = cli.flag(
        "Images that EXIF says to turn: refuse them, turn them upright, or leave them as stored; without the "
        "flag apply, and error with --masks.",
        default=None,
    )
    builder: BuilderOptions = cli.group(BuilderOptions, skip=("exif",))
    runner_flags: tuple[str, ...] = cli.words("[-- RUNNER_FLAG ...]")

    def __post_init__(self) -> None:
        """Refuses flags that do not go together."""
        if not self.masks and (self.mask_values or self.mask_palette != "auto"):
            raise InputError("--mask_values and --mask_palette need --masks")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.build_folder", __doc__, FolderOptions, _run, argv, EXAMPLES)


def _run(options: FolderOptions) -> None:
    with cli.working("loading TensorFlow"):
        from . import folder
        from .masks import MaskRules, parse_mask_values
        from .summary import split_table

    runner = beam.runner_flags(options.builder.runner, options.runner_flags)
    require_output_folder(options.output_dir, "--output_dir=")
    label_map = LabelMap.load(options.label_map)
    values = parse_mask_values(options.mask_values, label_map, options.domain)
    images = folder.ImageFolder(
        root=Path(options.images),
        label_map=label_map,
        domain=options.domain,
        csv_file=Path(options.csv) if options.csv else None,
        masks=Path(options.masks) if options.masks else None,
        mask_rules=MaskRules(label_map.ids(options.domain), values, options.mask_palette),
        unlisted=options.unlisted,
        malformed=options.builder.malformed,
        exif=options.exif or ("error" if options.masks else "apply"),
    )
    summaries = folder.build(
        folder=images,
        output_dir=options.output_dir,
        split=options.split or f"{options.domain}_train",
        val_split=options.val_split or f"{options.domain}_val",
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        num_shards=options.builder.num_shards,
        workers=options.builder.workers,
        runner=runner,
    )
    print("\n\n".join(split_table(summary) for summary in summaries))


if __name__ == "__main__":
    sys.exit(main())
