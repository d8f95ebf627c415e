"""The model directory: what a network is, its labels, and the checkpoints of each stage.

model_dir/model.json      architecture and configuration
model_dir/labels.json     the label map
model_dir/STAGE/ckpt-N    weights, optimizer and step after update N
"""

import dataclasses
import json
import os
from pathlib import Path

import keras
import tensorflow as tf

from tfseg.config import ModelConfig
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.models import BUILDERS, build_classifier
from tfseg.training.stages import CLASSIFIER_STAGES


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

    def save(self) -> None:
        """Writes `model.json` and `labels.json`.

        Raises:
            InputError: If the directory already belongs to another network or label map.
        """
        for file, text in (
            ("model.json", self._model_json()),
            ("labels.json", self._labels_json()),
        ):
            path = self.path / file
            if path.exists() and json.loads(path.read_text()) != json.loads(text):
                raise InputError(
                    f"{path}: the directory belongs to another network or label map; "
                    "give another --model_dir, or the flags and records it was made with"
                )
            if not path.exists():
                write_atomic(path, text.encode())

    def _model_json(self) -> str:
        return json.dumps({"model": self.name, "config": json.loads(self.config.to_json())}, indent=2)

    def _labels_json(self) -> str:
        return json.dumps(self.label_map.to_dict(), indent=2)

    def build(self, stage: str) -> keras.Model:
        """Builds the network that a stage trains, with fresh weights."""
        if stage in CLASSIFIER_STAGES:
            return build_classifier(self.config)
        return BUILDERS[self.name](self.config)

    def newest(self, stage: str) -> str | None:
        """Returns the newest checkpoint of a stage, or None."""
        return tf.train.latest_checkpoint(self.path / stage)

    def load(self, stage: str) -> keras.Model:
        """Builds the network of a stage and loads its newest weights.

        Raises:
            InputError: If the stage has no checkpoint, or it is damaged.
        """
        model = self.build(stage)
        restore_weights(model, self.require(stage))
        return model

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


def restore_weights(model: keras.Model, checkpoint: str) -> None:
    """Loads the weights of a model from a checkpoint, leaving optimizer and step.

    Raises:
        InputError: If the checkpoint is damaged or is another network's.
    """
    try:
        status = tf.train.Checkpoint(model=model).restore(checkpoint)
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint}: cannot be loaded into {model.name}: {reason}") from error


def load_model(model_dir: str | os.PathLike[str]) -> keras.Model:
    """Loads the segmentation network after the joint stage."""
    return read_model_dir(model_dir).load("joint")


def load_classifier(model_dir: str | os.PathLike[str]) -> keras.Model | None:
    """Loads the separate label classifier, or None where none was trained."""
    directory = read_model_dir(model_dir)
    return directory.load("classifier") if directory.newest("classifier") else None


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
