"""Builds records from a folder in VOC's layout, one domain of a pair of datasets.

    python -m tfrecords.build_voc --voc_root=VOCdevkit/VOC2012 --split=train_aug \
        --label_map=configs/labels/voc20_coco60.json --output_dir=DIR --output_split=target_train

Labels come from the XML annotations or from the masks; see `tfrecords.voc`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfrecords import voc
from tfrecords.pool import default_workers
from tfrecords.summary import split_table
from tfseg import cli
from tfseg.data.labels import DOMAINS, LabelMap

_VOC_ROOT = flags.DEFINE_string(
    "voc_root", None, "Folder with JPEGImages, Annotations and ImageSets/Segmentation.", required=True
)
_SPLIT = flags.DEFINE_string("split", None, "Name of ImageSets/Segmentation/SPLIT.txt.", required=True)
_OUTPUT_SPLIT = flags.DEFINE_string("output_split", "", "Name of the split to write; empty: as --split.")
_MASKS = flags.DEFINE_string(
    "masks",
    "SegmentationClassAug",
    "Folder of the masks within --voc_root: PNG files with a palette or grey values, pixel = label id. "
    "An image without a file there has no mask. Empty: no masks.",
)
_LABEL_MAP = flags.DEFINE_string("label_map", None, "Label map (JSON).", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the shards.", required=True)
_DOMAIN = flags.DEFINE_enum("domain", "target", DOMAINS, "Domain that the images belong to.")
_LABELS_FROM = flags.DEFINE_enum(
    "labels_from", "annotations", ["annotations", "masks"], "Image labels from the XML files or the masks."
)
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 0, "Shards to write; 0: one per 128 images.")
_WORKERS = flags.DEFINE_integer("workers", default_workers(), "Processes.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """The command; see the module's docstring."""
    del argv
    folder = voc.VocFolder(
        root=Path(_VOC_ROOT.value),
        label_map=LabelMap.load(_LABEL_MAP.value),
        domain=_DOMAIN.value,
        masks=_MASKS.value,
        labels_from=_LABELS_FROM.value,
    )
    summary = voc.build(
        folder=folder,
        split=_SPLIT.value,
        output_dir=_OUTPUT_DIR.value,
        output_split=_OUTPUT_SPLIT.value,
        num_shards=_NUM_SHARDS.value,
        workers=_WORKERS.value,
    )
    print(split_table(summary))


if __name__ == "__main__":
    cli.run(main)
