"""Draws the embedded two-domain dataset and writes it in the layouts of COCO and VOC.

The folder then holds `coco/annotations/instances_train.json` and `coco/train/*.jpg` (source domain),
`VOCdevkit/VOC2012/...` (target domain, splits train, val and test), `labels.json` (the label map)
and `synthetic.json` (the options, written last). Recipes are chosen on val, results reported on test.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import cli
from tfseg.files import require_output_folder

from .pool import default_workers

EXAMPLES = (
    "--output_dir=synthetic --seed=1",
    "--output_dir=small --source_train=200 --target_train=100 --target_val=50 --target_test=0",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """What is drawn; each field is a flag."""

    output_dir: str = cli.flag("Folder to make.")
    seed: int = cli.flag("Seed of everything drawn.", default=1, lower=0)
    source_train: int = cli.flag("Images in the COCO layout.", default=2500, lower=1)
    target_train: int = cli.flag("Images of the VOC split train.", default=1500, lower=1)
    target_val: int = cli.flag("Images of the VOC split val.", default=300, lower=1)
    target_test: int = cli.flag("Images of the VOC split test.", default=300, lower=0)
    image_size: int = cli.flag(
        "Nominal side of the images, pixels; real sides vary round it.", default=96, lower=32
    )
    folders: bool = cli.flag(
        "Also arrange the images as class folders, and as images beside masks, in OUTPUT_DIR/folders.",
        default=False,
    )
    workers: int = cli.flag("Processes.", default=default_workers(), advanced=True, lower=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.build_synthetic", __doc__, SyntheticOptions, _run, argv, EXAMPLES)


def _run(given: SyntheticOptions) -> None:
    from . import synthetic, synthetic_folders
    from .synthetic_scenes import SOURCE, TARGET

    require_output_folder(given.output_dir, "--output_dir=")
    options = synthetic.Options(
        seed=given.seed,
        source_train=given.source_train,
        target_train=given.target_train,
        target_val=given.target_val,
        target_test=given.target_test,
        image_size=given.image_size,
    )
    new = synthetic.build(given.output_dir, options, given.workers)
    total = options.source_train + options.target_train + options.target_val + options.target_test
    print(
        f"{given.output_dir}: {'drawn' if new else 'already there'}, {total} images, "
        f"{len(SOURCE)} source and {len(TARGET)} target categories, seed {options.seed}"
    )
    if given.folders:
        print(synthetic_folders.arrange(Path(given.output_dir)))


if __name__ == "__main__":
    sys.exit(main())
