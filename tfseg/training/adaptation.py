"""A trained network grows by categories with image labels alone: what it starts from, what is trained."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.data.sampling import PairStream, RehearsedStream
from tfseg.errors import InputError
from tfseg.model_dir import ModelDir
from tfseg.training.stages import label_axis


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What `tfseg.adapt` asks of the training of a stage.

    The encoder and the decoder stay as they are, and so does, unless `train_attention`, all that is not a row
    of a new label: masks of the old categories keep their bits.

    Attributes:
        old: The model directory to start from.
        train_attention: Whether stage joint trains all of the attention and its classification head.
        rehearsal: Splits that `old` was trained on, or others of its label map; none of their images may show
            a new category.
        rehearsal_share: Share of the pairs that are theirs, in (0, 1).
        flags: Of the command, as lines of a flagfile.
    """

    old: ModelDir
    train_attention: bool
    rehearsal: tuple[Split, ...]
    rehearsal_share: float
    flags: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuses records of other labels than the network's."""
        for split in self.rehearsal:
            if split.label_map != self.old.label_map:
                raise InputError(
                    f"{split.data_dir}/{split.name}.json: was built with another label map than "
                    f"{self.old.path}; old pairs are rehearsed from the records that it was trained on"
                )

    def first_label(self, stage: str) -> int:
        """Returns the id from which on rows are trained; 1: everything that the stage trains."""
        return 1 if self.train_attention and stage == "joint" else self.old.label_map.num_labels + 1

    def stream(self, data_dir: str, name: str, seed: int) -> PairStream | RehearsedStream:
        """Opens the pairs of the new categories' records, old pairs among them if there are any to rehearse.

        Raises:
            InputError: If the records' label map is not the old one with categories added, or no image shows
                one of these.
        """
        split = Split.load(data_dir, name)
        where = f"{data_dir}/{name}.json"
        try:
            added = split.label_map.added_to(self.old.label_map)
        except InputError as error:
            raise InputError(
                f"{where}: its label map does not go on from {self.old.path}: {error}"
            ) from error
        if not added:
            raise InputError(f"{where}: its label map has no category that {self.old.path} lacks")
        shown = {label for info in split.infos for label in info.labels}
        for label in added:
            if label not in shown:
                name = split.label_map.label(label).name
                raise InputError(f"{where}: no image shows {name}, so that nothing could be learnt of it")
        new = PairStream(split, seed, masks=0)
        old = [PairStream(one.relabelled(split.label_map), seed, masks=0) for one in self.rehearsal]
        return RehearsedStream(new, old, self.rehearsal_share) if old else new

    def load(self, network: keras.Model, stage: str) -> str:
        """Gives a fresh network the old one's weights; rows of new labels keep their random start.

        Returns:
            The checkpoint that they are from.

        Raises:
            InputError: If the stage has no checkpoint, or it is damaged.
        """
        old = {variable.path: variable.numpy() for variable in self.old.load(stage).weights}
        for ours in network.weights:
            if ours.path not in old:  # The first queries: 0 for the old labels.
                continue
            axis, value = label_axis(ours), old[ours.path]
            if axis is not None:
                old_rows = np.moveaxis(value, axis, 0)
                rows = np.moveaxis(ours.numpy(), axis, 0).copy()
                rows[: len(old_rows)] = old_rows
                value = np.moveaxis(rows, 0, axis)
            ours.assign(value)
        return self.old.require(stage)

    def describe(self, stage: str) -> dict[str, Any]:
        """Returns what the record of the stage says of it, ready for JSON."""
        rehearsed = {f"{split.data_dir}/{split.name}": split.summary["sha256"] for split in self.rehearsal}
        return {
            "adapted_from": {
                "model_dir": str(self.old.path),
                "weights": self.old.fingerprint((stage,)),
                "train": "attention" if self.train_attention else "new",
                "rehearsal": rehearsed,
                "rehearsal_share": self.rehearsal_share if rehearsed else 0.0,
            }
        }


def always_shown(old: LabelMap, data_dir: str, name: str) -> list[str]:
    """Returns the names of the new categories that every image of their records shows."""
    split = Split.load_index(data_dir, name)
    return [
        label.name
        for label in split.label_map.labels[old.num_labels :]
        if all(label.id in info.labels for info in split.infos)
    ]
