"""Draws the embedded two-domain dataset and writes it in the layouts of COCO and VOC.

    python -m tfrecords.build_synthetic --output_dir=DIR --seed=1

DIR then holds `coco/annotations/instances_train.json` and `coco/train/*.jpg` (source domain),
`VOCdevkit/VOC2012/...` (target domain, splits train, val and test), `labels.json` (the label map)
and `synthetic.json` (the options, written last). Recipes are chosen on val, results reported on test.
"""

from collections.abc import Sequence

from absl import flags

from tfrecords import synthetic
from tfrecords.pool import default_workers
from tfrecords.synthetic_scenes import SOURCE, TARGET
from tfseg import cli

_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to make.", required=True)
_SEED = flags.DEFINE_integer("seed", 1, "Seed of everything drawn.", lower_bound=0)
_SOURCE_TRAIN = flags.DEFINE_integer("source_train", 2500, "Images in the COCO layout.", lower_bound=1)
_TARGET_TRAIN = flags.DEFINE_integer("target_train", 1500, "Images of the VOC split train.", lower_bound=1)
_TARGET_VAL = flags.DEFINE_integer("target_val", 300, "Images of the VOC split val.", lower_bound=1)
_TARGET_TEST = flags.DEFINE_integer("target_test", 300, "Images of the VOC split test.", lower_bound=0)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    96,
    "Nominal side of the images, pixels; real sides vary round it.",
    lower_bound=32,
)
_WORKERS = flags.DEFINE_integer("workers", default_workers(), "Processes.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """The command; see the module's docstring."""
    del argv
    options = synthetic.Options(
        seed=_SEED.value,
        source_train=_SOURCE_TRAIN.value,
        target_train=_TARGET_TRAIN.value,
        target_val=_TARGET_VAL.value,
        target_test=_TARGET_TEST.value,
        image_size=_IMAGE_SIZE.value,
    )
    new = synthetic.build(_OUTPUT_DIR.value, options, _WORKERS.value)
    total = options.source_train + options.target_train + options.target_val + options.target_test
    print(
        f"{_OUTPUT_DIR.value}: {'drawn' if new else 'already there'}, {total} images, "
        f"{len(SOURCE)} source and {len(TARGET)} target categories, seed {options.seed}"
    )


if __name__ == "__main__":
    cli.run(main)
