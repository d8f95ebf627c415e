"""The images of the synthetic set, arranged as people have theirs: class folders, and images beside masks.

photographs/CATEGORY/*.jpg      the first categories of the target; images of one category each
new_photographs/CATEGORY/*.jpg  the next category, to be added to a trained model
things/images, things/masks     the source domain; masks hold 1 to 12, in the order of SOURCE
test/images, test/masks         images of all these target categories; masks hold 1 to 6, in TARGET's order
"""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from tfseg.folders import workspace

from .coco_masks import Region, paint
from .synthetic_scenes import SOURCE, TARGET

FOLDERS = "folders"
KNOWN = TARGET[:5]
"""Categories of `photographs`."""
NEW = TARGET[5]
"""The category of `new_photographs`."""


def arrange(drawn: Path) -> Path:
    """Copies a drawn set into `drawn/folders`, whole or not at all.

    Args:
        drawn: what `tfrecords.synthetic.build` wrote.

    Returns:
        The new folder; it stays as it is if it is there already.
    """
    folders = drawn / FOLDERS
    if folders.is_dir():
        return folders
    with workspace(drawn / f".{FOLDERS}.building") as building:
        draft = building / FOLDERS
        _arrange_things(drawn / "coco", draft / "things")
        _arrange_target(drawn / "VOCdevkit/VOC2012", draft)
        os.replace(draft, folders)
    return folders


def _arrange_things(coco: Path, folder: Path) -> None:
    content = json.loads((coco / "annotations/instances_train.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for image in content["images"]:
        shown = objects[image["id"]]
        if not shown or any(one["iscrowd"] or names[one["category_id"]] not in SOURCE for one in shown):
            continue
        file_name = image["file_name"]
        regions = [
            Region(one["id"], SOURCE.index(names[one["category_id"]]) + 1, False, one["segmentation"])
            for one in shown
        ]
        mask = paint(regions, image["height"], image["width"], file_name)
        shutil.copyfile(coco / "train" / file_name, folder / "images" / file_name)
        Image.fromarray(mask).save(folder / "masks" / Path(file_name).with_suffix(".png"))


def _arrange_target(voc: Path, folder: Path) -> None:
    shown = defaultdict(set)
    for path in sorted((voc / "Annotations").glob("*.xml")):
        names = {entry.text for entry in ElementTree.parse(path).iterfind("object/name")}
        split = path.stem.split("_")[0]
        if split == "train" and len(names) == 1:
            (name,) = names
            place = {NEW: "new_photographs"}.get(name, "photographs" if name in KNOWN else None)
            if place is not None:
                shown[folder / place / name].add(path.stem)
        elif split == "test" and names <= {*KNOWN, NEW}:
            shown[folder / "test/images"].add(path.stem)
    for place, stems in shown.items():
        place.mkdir(parents=True)
        for stem in stems:
            shutil.copyfile(voc / "JPEGImages" / f"{stem}.jpg", place / f"{stem}.jpg")
    (folder / "test/masks").mkdir(parents=True)
    for stem in shown[folder / "test/images"]:
        shutil.copyfile(voc / "SegmentationClassAug" / f"{stem}.png", folder / "test/masks" / f"{stem}.png")
