"""The model directory: what a network is, its labels, and the checkpoints of each stage.

model_dir/model.json      architecture and configuration
model_dir/labels.json     the label map
model_dir/STAGE/ckpt-N    weights, optimizer and step after update N
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from tfseg.config import BGR_MEAN_INFERENCE, CLASSIFIER_STAGES, ModelConfig
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.models import BUILDERS, build_classifier


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """A model directory.

    Attributes:
        path: The directory.
        name: Key of `tfseg.models.BUILDERS`.
        config: What the network is built from.
        label_map: What its label ids mean.
    """

    path: Path
    name: str
    config: ModelConfig
    label_map: LabelMap

    def refuse_other(self) -> None:
        """Checks that the directory is empty or holds this network.

        Raises:
            InputError: If it belongs to another network or label map.
        """
        for path, text in self._files():
            if path.exists() and _read_json(path) != json.loads(text):
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
        for path, text in self._files():
            if not path.exists():
                write_atomic(path, text.encode())

    def _files(self) -> list[tuple[Path, str]]:
        return [
            (self.path / "model.json", self._model_json()),
            (self.path / "labels.json", self._labels_json()),
        ]

    def _model_json(self) -> str:
        return json.dumps({"model": self.name, "config": json.loads(self.config.to_json())}, indent=2)

    def _labels_json(self) -> str:
        return json.dumps(self.label_map.to_dict(), indent=2)

    def build(self, stage: str) -> keras.Model:
        """Builds the network that a stage trains, with fresh weights."""
        if stage in CLASSIFIER_STAGES:
            return build_classifier(self.config)
        return BUILDERS[self.name](self.config)

    def with_mean(self, bgr_mean: Literal["training", "inference"]) -> "ModelDir":
        """Returns the directory with the mean that its networks subtract (SPEC 12 row 16).

        Args:
            bgr_mean: `training` for the one in `model.json`, `inference` for the one of the authors'
                inference script, which has more digits.
        """
        if bgr_mean == "training":
            return self
        return dataclasses.replace(self, config=self.config.replace(bgr_mean=BGR_MEAN_INFERENCE))

    def newest(self, stage: str) -> str | None:
        """Returns the newest checkpoint of a stage, or None."""
        try:
            newest = tf.train.latest_checkpoint(self.path / stage)
        except ValueError:  # The file that names it is empty, after a power cut.
            newest = None
        return newest or next(reversed(saved_checkpoints(self.path / stage)), None)

    def load(self, stage: str) -> keras.Model:
        """Builds the network of a stage and loads its newest weights.

        Raises:
            InputError: If the stage has no checkpoint, or it is damaged.
        """
        model = self.build(stage)
        restore_weights(model, self.require(stage))
        return model

    def load_classifier(self) -> keras.Model | None:
        """Loads the separate label classifier, or None where none was trained."""
        return self.load("classifier") if self.newest("classifier") else None

    def require(self, stage: str) -> str:
        """Returns the newest checkpoint of a stage.

        Raises:
            InputError: If there is none.
        """
        checkpoint = self.newest(stage)
        if checkpoint is None:
            raise InputError(
                f"{self.path / stage}: holds no checkpoint; run python -m tfseg.train --stage={stage} "
                f"--model_dir={self.path} first"
            )
        return checkpoint


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}") from error


def read_model_dir(path: str | os.PathLike[str]) -> ModelDir:
    """Reads what stands in a model directory.

    Raises:
        InputError: If it is not one.
    """
    path = Path(path)
    try:
        content = json.loads((path / "model.json").read_text())
        name, config = content["model"], json.dumps(content["config"])
    except OSError as error:
        raise InputError(f"{path}: not a model directory (no model.json); tfseg.train makes one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}/model.json: damaged: {error}") from error
    if name not in BUILDERS:
        raise InputError(f"{path}/model.json: model {name!r}; allowed are {', '.join(BUILDERS)}")
    label_map = LabelMap.load(path / "labels.json")
    return ModelDir(path, name, ModelConfig.from_json(config, f"{path}/model.json"), label_map)


# TensorFlow's readers have many names for a file that is cut short.
_UNREADABLE = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def restore_weights(model: keras.Model, checkpoint: str) -> None:
    """Loads the weights of a model from a checkpoint, leaving optimizer and step.

    Raises:
        InputError: If the checkpoint is damaged or is another network's.
    """
    try:
        status = tf.train.Checkpoint(model=model).restore(checkpoint)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, *_UNREADABLE) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint}: cannot be loaded into {model.name}: {reason}") from error


def stage_checkpoint(
    network: keras.Model, optimizer: keras.optimizers.Optimizer, step: tf.Variable
) -> tf.train.Checkpoint:
    """Returns what a stage saves: all that its next update depends on, beside the training stream.

    Args:
        network: The network of the stage.
        optimizer: Built for its trained variables.
        step: Updates done.
    """
    # Dropout's random state is no weight, and Keras leaves it out of checkpoints.
    weights = {weight.path for weight in network.weights}
    random = [variable.value for variable in network.variables if variable.path not in weights]
    return tf.train.Checkpoint(model=network, optimizer=optimizer, step=step, random=random)


def saved_checkpoints(stage_dir: Path) -> list[str]:
    """Lists the checkpoints of a stage, oldest first, by the files that are there."""
    paths = [path.with_suffix("") for path in stage_dir.glob("ckpt-*.index")]
    return [str(path) for path in sorted(paths, key=lambda path: int(path.name.removeprefix("ckpt-")))]


def restore_newest(
    checkpoint: tf.train.Checkpoint, stage_dir: Path, keep: int
) -> tuple[tf.train.CheckpointManager, str | None]:
    """Restores the newest checkpoint of a stage that can be read; a damaged one is passed over.

    Args:
        checkpoint: What to restore.
        stage_dir: Folder of the stage.
        keep: How many checkpoints the manager keeps.

    Returns:
        The manager that saves the next ones, and what was restored, None where there is nothing.

    Raises:
        InputError: If there are checkpoints, but none can be read.
    """
    saved = saved_checkpoints(stage_dir)
    whole = list(saved)
    while whole:
        try:
            checkpoint.restore(whole[-1])
            break
        except _UNREADABLE as error:
            print(f"{whole.pop()}: passed over, it cannot be read: {str(error).splitlines()[0]}")
    if saved and not whole:
        raise InputError(
            f"{stage_dir}: none of its {len(saved)} checkpoint(s) can be read; delete it to start anew"
        )
    if whole:
        _write_list(stage_dir, whole)
    manager = tf.train.CheckpointManager(checkpoint, stage_dir, keep)
    return manager, whole[-1] if whole else None


def _write_list(stage_dir: Path, saved: list[str]) -> None:
    """Writes the list of checkpoints that TensorFlow keeps; a killed run may leave it behind, or empty."""
    lines = [f'model_checkpoint_path: "{os.path.basename(saved[-1])}"']
    lines += [f'all_model_checkpoint_paths: "{os.path.basename(path)}"' for path in saved]
    lines += [f"all_model_checkpoint_timestamps: {os.path.getmtime(f'{path}.index')}" for path in saved]
    write_atomic(stage_dir / "checkpoint", "".join(f"{line}\n" for line in lines).encode())


def load_model(model_dir: str | os.PathLike[str]) -> keras.Model:
    """Loads the segmentation network after the joint stage."""
    return read_model_dir(model_dir).load("joint")


def load_classifier(model_dir: str | os.PathLike[str]) -> keras.Model | None:
    """Loads the separate label classifier, or None where none was trained."""
    return read_model_dir(model_dir).load_classifier()


def save_model_dir(
    directory: ModelDir, model: keras.Model | None = None, classifier: keras.Model | None = None
) -> None:
    """Writes a model directory from networks that were trained elsewhere.

    Args:
        directory: Path, architecture, configuration and labels.
        model: Segmentation network, saved as stage `joint`.
        classifier: Separate classifier, saved as stage `classifier`.
    """
    directory.save()
    for stage, network in (("joint", model), ("classifier", classifier)):
        if network is not None:
            checkpoint = tf.train.Checkpoint(model=network)
            manager = tf.train.CheckpointManager(checkpoint, directory.path / stage, max_to_keep=1)
            manager.save(checkpoint_number=0)
