"""What an evaluation has done so far, kept so that an interrupted one goes on."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfseg.config import STAGES
from tfseg.files import write_atomic
from tfseg.segmenter import find_saved_model


class Progress:
    """An append-only file of one JSON line an image, under a key that names what is evaluated.

    A file under another key (a newer checkpoint, other settings) is started anew; a last line that
    was cut off is dropped.

    Args:
        path: The file; its folder exists.
        key: JSON value of everything that the lines depend on.

    Attributes:
        done: What was added, by record number.
    """

    def __init__(self, path: str | os.PathLike[str], key: Any) -> None:
        self._path = Path(path)
        self.done: dict[int, dict[str, Any]] = {}
        header = json.dumps({"key": key}, sort_keys=True)
        lines = self._read_lines()
        if lines and lines[0] == header:
            entries = [json.loads(line) for line in lines[1:]]
            self.done = {entry["record"]: entry for entry in entries}
        kept = lines if self.done else [header]
        write_atomic(self._path, "".join(line + "\n" for line in kept).encode())
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def add(self, record: int, entry: dict[str, Any]) -> None:
        """Keeps what came out for one record; it outlasts a killed process."""
        entry = {"record": record, **entry}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self.done[record] = entry

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        return whole.splitlines()


def model_fingerprint(
    path: str | os.PathLike[str], stages: Sequence[str] = ("joint", "classifier")
) -> dict[str, str]:
    """Names the weights that `Segmenter.load(path)` takes.

    The index of a TensorFlow checkpoint holds a checksum of every tensor, so its hash stands for the
    weights without reading them.

    Args:
        path: A model_dir, or a SavedModel.
        stages: Of a model_dir, those whose weights are taken.

    Returns:
        SHA-256 (hexadecimal) of each file that says which weights there are, by its name in `path`.
    """
    path = Path(path)
    export = find_saved_model(path)
    if export is not None:
        files = [export / "saved_model.pb", export / "variables" / "variables.index"]
    else:
        checkpoints = [tf.train.latest_checkpoint(path / stage) for stage in stages]
        files = [path / "model.json", path / "labels.json"]
        files += [Path(f"{checkpoint}.index") for checkpoint in checkpoints if checkpoint]
    return {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def training_record(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Reads what the stages of a model directory were trained on, so that a result says it.

    Args:
        path: A model_dir; a SavedModel tells nothing.

    Returns:
        By stage: `data`, as `tfseg.train` wrote it into `run.json` (split, images, pairs, masks,
        fraction, subset seed and checksums by domain), and `flags`, the lines of its flagfile. Stages
        that another program made (an import) are missing.
    """
    stages = {}
    for stage in STAGES:
        run, flags = Path(path) / stage / "run.json", Path(path) / stage / "flags.cfg"
        if run.is_file() and flags.is_file():
            data = json.loads(run.read_text()).get("data", {})
            stages[stage] = {"data": data, "flags": flags.read_text().splitlines()}
    return stages
