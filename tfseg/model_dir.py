"""Which network lies in a folder, with which weights, and how it was trained.

model_dir/model.json        architecture and configuration
model_dir/labels.json       the label map
model_dir/STAGE/ckpt-N      weights, optimizer and step after update N
model_dir/STAGE/flags.cfg   the flags of the newest run of the stage; those of earlier runs as comments
model_dir/STAGE/run.json    versions, devices and data of the newest run, and under `runs` of each one

`find_model` opens such a folder or an export; what loads weights and what names them both ask it, so that
they can never differ. Nothing here imports TensorFlow before a network is built.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfseg.commands import called
from tfseg.config import BGR_MEAN_INFERENCE, CLASSIFIER_STAGES, STAGES, ModelConfig, ModelName
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.files import require_output_folder, require_plain_path, write_atomic

if TYPE_CHECKING:
    import keras


BEST = "best"
"""Folder within a stage's: the checkpoint that `--keep_best` of tfseg.train kept."""


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """A model directory.

    ```python
    directory = read_model_dir("runs/demo/model")
    network = directory.load("joint")                   # the newest weights
    earlier = directory.load("joint", checkpoint=400)   # those after update 400
    ```

    Attributes:
        path: The directory.
        name: Of `tfseg.config.ModelName`.
        config: What the network is built from.
        label_map: What its label ids mean.
    """

    path: Path
    name: str
    config: ModelConfig
    label_map: LabelMap

    def __post_init__(self) -> None:
        """Refuses paths in which TensorFlow finds no checkpoint."""
        require_plain_path(self.path, "model directory ")

    def refuse_other(self) -> None:
        """Checks that the directory is empty or holds this network.

        Raises:
            InputError: If it belongs to another network or label map.
        """
        for path, content in self._descriptions():
            if path.exists() and _with_defaults(_read_json(path)) != content:
                raise InputError(
                    f"{path}: the directory belongs to another network or label map; "
                    "give another --model_dir, or the flags and records it was made with"
                )

    def save(self) -> None:
        """Writes `model.json` and `labels.json` where they are not there yet.

        Raises:
            InputError: As `refuse_other`.
        """
        self.refuse_other()
        require_output_folder(self.path, "model directory ")
        for path, content in self._descriptions():
            if not path.exists():
                write_atomic(path, json.dumps(content, indent=2).encode())

    def _descriptions(self) -> list[tuple[Path, Any]]:
        config = json.loads(self.config.to_json())
        return [
            (self.path / "model.json", {"model": self.name, "config": config}),
            (self.path / "labels.json", self.label_map.to_dict()),
        ]

    def with_mean(self, bgr_mean: Literal["training", "inference"]) -> "ModelDir":
        """Returns the directory with the mean that its networks subtract (SPEC 12 row 16).

        Args:
            bgr_mean: `training` for the one in `model.json`, `inference` for the one of the authors'
                inference script, which has more digits.
        """
        if bgr_mean == "training":
            return self
        return dataclasses.replace(self, config=self.config.replace(bgr_mean=BGR_MEAN_INFERENCE))

    def build(self, stage: str) -> "keras.Model":
        """Builds the network that a stage trains, with fresh weights."""
        from tfseg.models import BUILDERS, build_classifier

        if stage in CLASSIFIER_STAGES:
            return build_classifier(self.config)
        return BUILDERS[self.name](self.config)

    def newest(self, stage: str) -> str | None:
        """Returns the newest checkpoint of a stage, or None.

        The files decide, as when a training is resumed: TensorFlow's list of them, `checkpoint`, is
        missing or behind after a copy or a power cut.
        """
        saved = saved_checkpoints(self.path / stage)
        return saved[-1] if saved else None

    def require(self, stage: str, checkpoint: int | None = None) -> str:
        """Returns a checkpoint of a stage: the one after update `checkpoint`, or the newest.

        Raises:
            InputError: If there is none.
        """
        saved = saved_checkpoints(self.path / stage)
        if not saved:
            raise InputError(
                f"{self.path / stage}: holds no checkpoint; run {called('tfseg.train')} --stage={stage} "
                f"--model_dir={self.path} first"
            )
        if checkpoint is None:
            return saved[-1]
        kept = [*saved, *saved_checkpoints(self.path / stage / BEST)]
        wanted = next((path for path in kept if path.endswith(f"/ckpt-{checkpoint}")), None)
        if wanted is None:
            numbers = ", ".join(path.rsplit("-", 1)[1] for path in kept)
            raise InputError(
                f"{self.path / stage}: holds no checkpoint {checkpoint}; it has {numbers} "
                "(--keep_checkpoints of tfseg.train says how many stay)"
            )
        return wanted

    def load(self, stage: str, checkpoint: int | None = None) -> "keras.Model":
        """Builds the network of a stage and loads its newest weights, or those after an update.

        Raises:
            InputError: If the stage has no such checkpoint, or it is damaged; a note names an older one that
                is whole.
        """
        saved = self.require(stage, checkpoint)
        model = self.build(stage)
        try:
            restore_weights(model, saved)
        except InputError as error:
            if older := self._older(model, stage, saved):
                way = "take it by --checkpoint=" if stage == "joint" else f"move {saved}.* away to take "
                error.add_note(f"{older} is older and whole, {way}{older.rsplit('-', 1)[1]}")
            raise
        return model

    def _older(self, model: "keras.Model", stage: str, damaged: str) -> str | None:
        """Returns the newest checkpoint before a damaged one that can be loaded, or None."""
        there = saved_checkpoints(self.path / stage)
        for path in reversed(there[: there.index(damaged)] if damaged in there else ()):
            with contextlib.suppress(InputError):
                restore_weights(model, path)
                return path
        return None

    def load_classifier(self) -> "keras.Model | None":
        """Loads the separate label classifier, or None where none was trained."""
        return self.load("classifier") if self.newest("classifier") else None

    def fingerprint(
        self, stages: Sequence[str] = ("joint", "classifier"), checkpoint: int | None = None
    ) -> dict[str, str]:
        """Names the weights that `load` takes, and what they are built into.

        The index of a TensorFlow checkpoint holds a checksum of every tensor, so its hash stands for the
        weights without reading them.

        Args:
            stages: Whose weights are taken; one without a checkpoint is left out.
            checkpoint: Of the first of the stages, as for `load`; of the others the newest counts.

        Returns:
            SHA-256 (hexadecimal) of each file, by its name in the directory.
        """
        files = [self.path / "model.json", self.path / "labels.json"]
        for stage in stages:
            number = checkpoint if stage == stages[0] else None
            if number is not None or self.newest(stage):
                files.append(Path(f"{self.require(stage, number)}.index"))
        return _hashes(self.path, files)

    def training_record(self) -> dict[str, dict[str, Any]]:
        """Reads what the stages were trained on, so that a result says it.

        Returns:
            By stage: `data`, what its newest run read (split, images, pairs, masks, fraction, subset
            seed and checksums by domain); `flags`, that run's flagfile; and, where flags, data or versions
            changed between runs, `runs`, each with the `first_update` that it did. Stages that another
            program made (an import) are missing.
        """
        record: dict[str, dict[str, Any]] = {}
        for stage in STAGES:
            runs = read_runs(self.path / stage)
            if runs:
                record[stage] = {"data": runs[-1].get("data", {}), "flags": runs[-1]["flags"]}
                if len(runs) > 1:
                    kept = ("first_update", "flags", "data")
                    record[stage]["runs"] = [{key: run.get(key) for key in kept} for run in runs]
        return record


@dataclasses.dataclass(frozen=True)
class Export:
    """A SavedModel of `export.saved_model`, one version.

    ```python
    Export(Path("runs/demo/export/1")).label_map.num_labels
    ```

    Attributes:
        path: The version's directory.
    """

    path: Path

    @property
    def label_map(self) -> LabelMap:
        """What its label ids mean."""
        return LabelMap.load(self.path / "assets.extra" / "labels.json")

    def fingerprint(self) -> dict[str, str]:
        """Names its graph and weights; see `ModelDir.fingerprint`."""
        files = [self.path / "saved_model.pb", self.path / "variables" / "variables.index"]
        return _hashes(self.path, [file for file in files if file.is_file()])


def find_model(path: str | os.PathLike[str]) -> ModelDir | Export:
    """Opens a model directory; or an export: a version's folder, or that of versions, the newest of them.

    A model directory is one even if an export lies in it.

    Raises:
        InputError: If it is neither, or damaged.
    """
    path = Path(path)
    if (path / "model.json").is_file():
        return read_model_dir(path)
    version = find_saved_model(path)
    if version is None:
        raise InputError(
            f"{path}: holds no model; needed is a model_dir (with model.json) or a SavedModel "
            "(with saved_model.pb, or in folders named 1, 2, ...)"
        )
    return Export(version)


def find_saved_model(path: str | os.PathLike[str]) -> Path | None:
    """Returns the SavedModel directory that `path` is, or the newest version in it, or None."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    found = [file for file in path.glob("*/saved_model.pb") if file.is_file()]
    versions = [file.parent for file in found if file.parent.name.isdecimal()]
    return max(versions, key=lambda version: int(version.name), default=None)


def read_model_dir(path: str | os.PathLike[str]) -> ModelDir:
    """Reads what stands in a model directory.

    Raises:
        InputError: If it is not one.
    """
    path = Path(path)
    try:
        content = json.loads((path / "model.json").read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: not a model directory (no model.json); tfseg.train makes one") from error
    except OSError as error:
        raise InputError(f"{path}/model.json: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}/model.json: damaged: {error}") from error
    if not isinstance(content, dict) or not {"model", "config"} <= set(content):
        raise InputError(f'{path}/model.json: damaged: must be an object with "model" and "config"')
    name, config = content["model"], json.dumps(content["config"])
    if name not in typing.get_args(ModelName):
        allowed = ", ".join(typing.get_args(ModelName))
        raise InputError(f"{path}/model.json: model {name!r}; allowed are {allowed}")
    label_map = LabelMap.load(path / "labels.json")
    shape = ModelConfig.from_json(config, f"{path}/model.json")
    if label_map.num_labels != shape.num_labels:
        raise InputError(
            f"{path}/labels.json: has {label_map.num_labels} labels, the network of model.json "
            f"{shape.num_labels} (num_labels)"
        )
    return ModelDir(path, name, shape, label_map)


def load_model(model_dir: str | os.PathLike[str]) -> "keras.Model":
    """Loads the segmentation network after the joint stage."""
    return read_model_dir(model_dir).load("joint")


def load_classifier(model_dir: str | os.PathLike[str]) -> "keras.Model | None":
    """Loads the separate label classifier, or None where none was trained."""
    return read_model_dir(model_dir).load_classifier()


def save_model_dir(
    directory: ModelDir, model: "keras.Model | None" = None, classifier: "keras.Model | None" = None
) -> None:
    """Writes a model directory from networks that were trained elsewhere.

    Args:
        directory: Path, architecture, configuration and labels.
        model: Segmentation network, saved as stage `joint`.
        classifier: Separate classifier, saved as stage `classifier`.
    """
    import tensorflow as tf

    directory.save()
    for stage, network in (("joint", model), ("classifier", classifier)):
        if network is not None:
            checkpoint = tf.train.Checkpoint(model=network)
            manager = tf.train.CheckpointManager(checkpoint, directory.path / stage, max_to_keep=1)
            manager.save(checkpoint_number=0)


def saved_checkpoints(stage_dir: Path) -> list[str]:
    """Lists the checkpoints of a stage, oldest first, by the files that are there."""
    found = [re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in stage_dir.glob("ckpt-*.index")]
    numbers = sorted(int(match[1]) for match in found if match)
    return [str(stage_dir / f"ckpt-{number}") for number in numbers]


def restore_weights(model: "keras.Model", checkpoint: str) -> None:
    """Loads the weights of a model from a checkpoint, leaving optimizer and step.

    Raises:
        InputError: If the checkpoint is damaged, is another network's or holds weights that are no numbers.
    """
    import tensorflow as tf

    try:
        status = tf.train.Checkpoint(model=model).restore(checkpoint)
        status.expect_partial().assert_existing_objects_matched()
    # TensorFlow's readers have many names for a file that is cut short.
    except (AssertionError, tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint}: cannot be loaded into {model.name}: {reason}") from error
    if (path := not_finite(model)) is not None:
        raise InputError(f"{checkpoint}: the weight {path} has values that are NaN or infinite")


def not_finite(model: "keras.Model") -> str | None:
    """Returns the path of the first weight with values that are NaN or infinite; None without any."""
    import tensorflow as tf

    finite = ((weight.path, tf.reduce_all(tf.math.is_finite(weight.value))) for weight in model.weights)
    return next((path for path, is_finite in finite if not is_finite), None)


def append_run(stage_dir: Path, first_update: int, flags: Sequence[str], run: dict[str, Any]) -> None:
    """Adds a run to the record of a stage, before its first update.

    Args:
        stage_dir: Folder of the stage.
        first_update: Number of the run's first update, from 1; the record drops earlier runs from there on,
            for nothing of them is in the weights.
        flags: The run's flags as lines of a flagfile.
        run: What else is known of it, ready for JSON: versions, devices, data.
    """
    runs = [earlier for earlier in read_runs(stage_dir) if earlier["first_update"] < first_update]
    new = json.loads(json.dumps({"first_update": first_update, "flags": list(flags), **run}))
    if not runs or {**new, "first_update": 0} != {**runs[-1], "first_update": 0}:
        runs.append(new)
    lines: list[str] = []
    for entry in runs:
        lines.append(f"# from update {entry['first_update']} on")
        mark = "" if entry is runs[-1] else "# "  # As a flagfile it is the newest run's.
        lines += [mark + line for line in entry["flags"]]
    write_atomic(stage_dir / "flags.cfg", "".join(f"{line}\n" for line in lines).encode())
    write_atomic(stage_dir / "run.json", json.dumps({**run, "runs": runs}, indent=2).encode())


def read_runs(stage_dir: Path) -> list[dict[str, Any]]:
    """Returns the runs that trained a stage, each with its `first_update`, `flags` and what else it wrote.

    Raises:
        InputError: If the record is damaged.
    """
    run_path, flags_path = stage_dir / "run.json", stage_dir / "flags.cfg"
    if not (run_path.is_file() and flags_path.is_file()):
        return []
    content = _read_json(run_path)
    if "runs" in content:
        return content["runs"]
    # Written before runs were kept apart: one, as far as anybody knows.
    return [{"first_update": 1, "flags": flags_path.read_text().splitlines(), **content}]


def _hashes(root: Path, files: Sequence[Path]) -> dict[str, str]:
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def _with_defaults(content: Any) -> Any:
    """Fills in the fields that `model.json` lacks because a later version added them."""
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        return content
    return {**content, "config": {**json.loads(ModelConfig().to_json()), **content["config"]}}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}") from error
