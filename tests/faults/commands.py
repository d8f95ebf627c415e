"""Every command that writes, on small inputs, and what it has to leave in its output folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export import manifest
from tfseg.model_dir import read_model_dir

TRAIN = (
    "--stage=encoder", "--encoder_weights=none", "--preset=tiny", "--image_size=32", "--batch_size=4",
    "--steps=12", "--checkpoint_every=3", "--seed=3", "--summary_every=2",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What the commands read.

    Attributes:
        synthetic: COCO and VOC folder of a tiny set, `labels.json`.
        classes: class folders.
        records: splits source_train, target_train and target_val.
        model: model directory with stages joint and classifier.
    """

    synthetic: Path
    classes: Path
    records: Path
    model: Path


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: that is run.
        words: its flags, given the inputs and the output folder.
        content: of the output folder when the command has ended well; equal for equal results.
        is_slow: whether it takes more than a few seconds.
    """

    module: str
    words: Callable[[World, Path], list[str]]
    content: Callable[[Path], object]
    is_slow: bool = False

    def prepare(self, world: World, out: Path) -> None:
        """Puts into the output folder what the command expects there."""
        if self.module == "tfrecords.verify":
            shutil.copytree(world.records, out)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones included; of JSON, without what differs from run to run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            found[name] = _settled(path) if path.name == "metrics.json" else path.read_bytes()
    return found


def _settled(path: Path) -> bytes:
    content = json.loads(path.read_bytes())
    for key in ("seconds", "flags", "command"):
        content.pop(key)
    return json.dumps(content).encode()


def _training(folder: Path) -> object:
    # All that the stage computed, bit by bit: weights of the last update, losses of all.
    model = read_model_dir(folder).load("encoder")
    losses = [json.loads(line) for line in (folder / "encoder/losses.jsonl").read_text().splitlines()]
    unfinished = [
        path.name for path in folder.rglob("*") if "temp" in path.name or path.name.endswith(".tmp")
    ]
    assert not unfinished
    return [np.asarray(weight).tobytes() for weight in model.get_weights()], losses


def _export(folder: Path) -> object:
    # Its variables; the graph's names may differ.
    manifest.check(folder / "1")
    assert [path.name for path in folder.iterdir()] == ["1"]
    return sorted(path.name for path in (folder / "1").rglob("*"))


COMMANDS = {
    "build_coco": Command(
        "tfrecords.build_coco",
        lambda world, out: [
            f"--annotations={world.synthetic}/coco/annotations/instances_train.json",
            f"--images={world.synthetic}/coco/train", f"--label_map={world.synthetic}/labels.json",
            "--split=source_train", f"--output_dir={out}", "--num_shards=8", "--workers=1",
        ],
        files_of,
    ),
    "build_voc": Command(
        "tfrecords.build_voc",
        lambda world, out: [
            f"--voc_root={world.synthetic}/VOCdevkit/VOC2012", "--split=train",
            f"--label_map={world.synthetic}/labels.json", "--output_split=target_train",
            f"--output_dir={out}", "--num_shards=6", "--workers=2",
        ],
        files_of,
        is_slow=True,  # Its workers import TensorFlow anew.
    ),
    "build_folder": Command(
        "tfrecords.build_folder",
        lambda world, out: [
            f"--images={world.classes}", f"--label_map={world.synthetic}/labels.json", "--split=target_train",
            "--val_fraction=0.3", f"--output_dir={out}", "--num_shards=4", "--workers=1",
        ],
        files_of,
    ),
    "build_synthetic": Command(
        "tfrecords.build_synthetic",
        lambda world, out: [
            f"--output_dir={out}", "--seed=3", "--source_train=16", "--target_train=8", "--target_val=4",
            "--target_test=4", "--workers=1",
        ],
        files_of,
    ),
    "label_map": Command(
        "tfrecords.label_map",
        lambda world, out: [f"--from={world.classes}", "--domain=target", f"--output={out}/labels.json"],
        files_of,
    ),
    "verify": Command("tfrecords.verify", lambda world, out: [str(out), "--workers=1"], files_of),
    "predict": Command(
        "tfseg.predict",
        lambda world, out: [
            f"--model_dir={world.model}", f"--output_dir={out}", f"{world.classes}/*/*0*.jpg",
        ],
        files_of,
        is_slow=True,
    ),
    "evaluate": Command(
        "tfseg.evaluate",
        lambda world, out: [
            f"--model_dir={world.model}", f"--data_dir={world.records}", f"--output_dir={out}",
            "--labels=ground_truth",
        ],
        files_of,
    ),
    "train": Command(
        "tfseg.train",
        lambda world, out: [f"--data_dir={world.records}", f"--model_dir={out}", *TRAIN],
        _training,
        is_slow=True,
    ),
    "export": Command(
        "export.saved_model",
        lambda world, out: [f"--model_dir={world.model}", f"--output_dir={out}", "--version=1"],
        _export,
        is_slow=True,
    ),
}  # fmt: skip
