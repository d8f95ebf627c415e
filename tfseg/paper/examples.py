"""Images with their ground truth, taken from records to be looked at."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID
from tfseg.data.records import Split, parse
from tfseg.errors import InputError
from tfseg.inference.images import read_image


@dataclasses.dataclass(frozen=True)
class Example:
    """One image to show.

    Attributes:
        name: The image's id in its dataset, or its file name.
        image: uint8 `[H, W, 3]`.
        truth: uint8 `[H, W]`, label ids; None where nobody knows.
        labels: Label ids of the image's record, ascending; empty for a file.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray | None
    labels: tuple[int, ...]


def read_example(split: Split, index: int) -> Example:
    """Reads a record of a split.

    The labels are those of the mask where there is one.

    Raises:
        InputError: If the record or what is in it cannot be read.
    """
    info = split.infos[index]
    where = f"{split.data_dir / split.shards[info.shard]}: record {index} ({info.image_id})"
    record = parse(tf.constant(split.read(index)))
    # Masks lie on the pixels as they are stored, whatever EXIF says.
    image = read_image(record["image"].numpy(), upright=False, name=where)
    truth, labels = None, info.labels
    if info.has_mask:
        try:
            with Image.open(io.BytesIO(record["mask"].numpy())) as opened:
                truth = np.array(opened)
        except Exception as error:  # Pillow raises many kinds for damaged files.
            raise InputError(f"{where}: the mask cannot be decoded ({error})") from error
        if truth.shape != image.shape[:2]:
            raise InputError(f"{where}: the mask is {truth.shape}, the image {image.shape[:2]}")
        labels = tuple(v for v in np.unique(truth).tolist() if v not in (BACKGROUND_ID, IGNORE_ID))
    return Example(info.image_id, image, truth, labels)


def choose_pairs(split: Split, count: int) -> list[tuple[int, int]]:
    """Chooses (record number, label) pairs for a reader: all labels in turn, no image twice.

    The first image of each label in the order of the split is taken, then each label's second one, and so
    on. Nothing that a network says has a part in it.

    Args:
        split: Records with labels.
        count: How many at most.
    """
    by_label = {label: [] for label in split.label_map.ids(split.domain)}
    for index, label in split.pairs:
        if split.infos[index].has_mask and label in by_label:
            by_label[label].append(index)
    chosen: list[tuple[int, int]] = []
    taken: set[int] = set()
    while len(chosen) < count:
        before = len(chosen)
        for label, indices in by_label.items():
            free = next((index for index in indices if index not in taken), None)
            if free is not None and len(chosen) < count:
                chosen.append((free, label))
                taken.add(free)
        if len(chosen) == before:
            break
    return chosen


def find_examples(split: Split | None, names: Sequence[str]) -> list[Example]:
    """Reads images named by their ids in a split, or files.

    Args:
        split: Where ids are looked up; None when there are files only.
        names: Ids of `split`, or paths of image files.

    Raises:
        InputError: If a name is neither, or cannot be read.
    """
    ids = {} if split is None else {info.image_id: index for index, info in enumerate(split.infos)}
    found = []
    for name in names:
        if name in ids:
            found.append(read_example(split, ids[name]))
        elif Path(name).is_file():
            found.append(Example(Path(name).name, read_image(name), None, ()))
        else:
            hint = f" nor an id of split {split.name} ({', '.join(list(ids)[:3])}, ...)" if split else ""
            raise InputError(f"image {name!r}: is no file{hint}")
    return found
