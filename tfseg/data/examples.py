"""One record as arrays: the one way from a split to an image, its mask and its labels."""

import dataclasses
import io

import numpy as np
from PIL import Image

from tfseg.data.images import read_image
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID
from tfseg.data.records import Split, parse
from tfseg.errors import InputError, RecordError


@dataclasses.dataclass(frozen=True)
class Example:
    """An image with its ground truth.

    ```python
    split = Split.load("records", "target_val")
    example = read_example(split, 0)
    example.image.shape, example.labels
    ```

    Attributes:
        name: The image's id in its dataset, or its file name.
        image: uint8 `[H, W, 3]`, RGB, as the pixels are stored, whatever EXIF says: masks lie on them.
        mask: uint8 `[H, W]`, label ids, 0 background, 255 ignored; None where there is none.
        labels: Ids, ascending: those of the mask where there is one, else those of the record.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray | None
    labels: tuple[int, ...]


def read_example(split: Split, index: int, with_mask: bool = True) -> Example:
    """Reads a record of a split.

    Args:
        split: The split.
        index: Number of the record.
        with_mask: Whether its mask is read; its labels are then those of the mask.

    Raises:
        RecordError: If its bytes are damaged, or as `decode_example` says.
    """
    return decode_example(split, index, split.read(index), with_mask)


def decode_example(split: Split, index: int, serialized: bytes, with_mask: bool = True) -> Example:
    """Decodes a record that was read.

    Args:
        split: The split.
        index: Number of the record.
        serialized: From `Split.read`.
        with_mask: As for `read_example`.

    Raises:
        RecordError: If the record, its image or its mask is damaged or not what the index says, or the mask
            is of another size or holds ids that are not of the split's domain; the message names file and
            record.
    """
    info = split.infos[index]
    where = record_name(split, index)
    try:
        record = parse(serialized)
    except Exception as error:  # TensorFlow's, which this module does not import.
        raise RecordError(
            "no tf.Example", f"{where}: is no record; build the split again ({error})"
        ) from error
    if (image_id := record["id"].numpy().decode(errors="replace")) != info.image_id:
        raise RecordError("not what the index says", f"{where}: the record is of image {image_id}")
    labels = tuple(record["labels"].numpy().tolist())
    if labels != info.labels:
        raise RecordError(
            "not what the index says",
            f"{where}: the record has the labels {list(labels)}, the index says {list(info.labels)}",
        )
    try:
        image = read_image(record["image"].numpy(), upright=False, name=where)
    except InputError as error:
        raise RecordError("image cannot be decoded", str(error)) from error
    if image.shape[:2] != (info.height, info.width):
        raise RecordError(
            "not what the index says",
            f"{where}: its image is {image.shape[1]}x{image.shape[0]}, the index says "
            f"{info.width}x{info.height} (width x height)",
        )
    if not (with_mask and info.has_mask):
        return Example(info.image_id, image, None, info.labels)
    mask = _read_mask(record["mask"].numpy(), split, image.shape[:2], where)
    return Example(info.image_id, image, mask, mask_labels(mask))


def record_name(split: Split, index: int) -> str:
    """Names a record in messages: its file, its number and its image."""
    info = split.infos[index]
    return f"{split.data_dir / split.shards[info.shard]}: record {index} ({info.image_id})"


def mask_labels(mask: np.ndarray) -> tuple[int, ...]:
    """Returns the labels that occur in a mask, without background and 255, ascending."""
    return tuple(v for v in np.unique(mask).tolist() if v not in (BACKGROUND_ID, IGNORE_ID))


def _read_mask(encoded: bytes, split: Split, shape: tuple[int, int], where: str) -> np.ndarray:
    """Decodes the mask of an image of some (height, width) and checks size and ids."""
    try:
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as opened:
            mask = np.array(opened)
    except Exception as error:  # Pillow raises many kinds for damaged files.
        raise RecordError(
            "mask cannot be decoded", f"{where}: the mask cannot be decoded ({error})"
        ) from error
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise RecordError("mask cannot be decoded", f"{where}: the mask is not 8-bit with one channel")
    if mask.shape != shape:
        raise RecordError(
            "mask of another size", f"{where}: the mask is {mask.shape}, the image {shape} (height, width)"
        )
    strange = [label for label in mask_labels(mask) if label not in split.label_map.ids(split.domain)]
    if strange:
        raise RecordError(
            "mask with strange ids", f"{where}: the mask holds the ids {strange}, which its domain has not"
        )
    return mask
