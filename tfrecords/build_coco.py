"""Builds records from a COCO folder, one domain of a pair of datasets.

    python -m tfrecords.build_coco --annotations=instances_train2017.json --images=train2017 \
        --label_map=configs/labels/voc20_coco60.json --split=source_train --output_dir=DIR

Images that hold a category of the other domain are dropped whole; see `tfrecords.coco` for the rules.
"""

from collections.abc import Sequence

from absl import flags

from tfrecords import coco
from tfrecords.pool import default_workers
from tfrecords.summary import split_table
from tfseg import cli
from tfseg.data.labels import DOMAINS, LabelMap

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO instances file (JSON).", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the images.", required=True)
_LABEL_MAP = flags.DEFINE_string("label_map", None, "Label map (JSON).", required=True)
_SPLIT = flags.DEFINE_string("split", None, "Name of the split to write.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the shards.", required=True)
_DOMAIN = flags.DEFINE_enum("domain", "source", DOMAINS, "Domain that the images belong to.")
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 0, "Shards to write; 0: one per 128 images.")
_EXCLUDE = flags.DEFINE_bool(
    "exclude_target_images",
    True,
    "Drop each image with an annotation, crowd included, of a category of the other domain. If false such "
    "images are kept, and the pixels of those categories are 255 (ignored).",
)
_MIN_AREA = flags.DEFINE_float(
    "min_area",
    0.0,
    "Least area, pixels, with which an annotation makes its category a label of the image.",
    lower_bound=0.0,
)
_UNLISTED = flags.DEFINE_enum(
    "unlisted",
    "error",
    ["error", "ignore", "background"],
    "Categories that the label map does not list: refuse the file, paint them 255, or leave them out.",
)
_WORKERS = flags.DEFINE_integer("workers", default_workers(), "Processes.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """The command; see the module's docstring."""
    del argv
    summary = coco.build(
        annotations=_ANNOTATIONS.value,
        images_dir=_IMAGES.value,
        label_map=LabelMap.load(_LABEL_MAP.value),
        rules=coco.Rules(_DOMAIN.value, _EXCLUDE.value, _MIN_AREA.value, _UNLISTED.value),
        split=_SPLIT.value,
        output_dir=_OUTPUT_DIR.value,
        num_shards=_NUM_SHARDS.value,
        workers=_WORKERS.value,
    )
    print(split_table(summary))


if __name__ == "__main__":
    cli.run(main)
