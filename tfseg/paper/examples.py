"""Images with their ground truth, taken from records to be looked at."""

from collections.abc import Sequence
from pathlib import Path

from tfseg.data.examples import Example, read_example
from tfseg.data.images import read_image
from tfseg.data.records import Split
from tfseg.errors import InputError


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
