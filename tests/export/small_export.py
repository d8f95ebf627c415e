"""A small trained model and what an export of it is held to."""

from pathlib import Path
from typing import NamedTuple

import keras
from small_networks import THREE_BLOCKS, contrast

from tfseg.config import ModelConfig
from tfseg.data.labels import Label, LabelMap
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir
from tfseg.models import BUILDERS

REPOSITORY = Path(__file__).resolve().parents[2]
LABEL_MAP = LabelMap(
    "five",
    (
        Label(1, "dog", "target", ("hound",)),
        Label(2, "cat", "target"),
        Label(3, "wine glass", "source"),
        Label(4, "bench", "source"),
        Label(5, "zebra", "source"),
    ),
)
CONFIG = THREE_BLOCKS.replace(image_size=32, classifier_units=6)


def make_network(name="transfernet", seed=0, config=CONFIG):
    """Random weights, scaled so that probabilities are far from one half and attention far from uniform."""
    keras.utils.set_random_seed(seed)
    network = BUILDERS[name](config)
    contrast(network)
    return network


class Exported(NamedTuple):
    folder: Path
    version_dir: Path
    network: keras.Model
    classifier: keras.Model
    segmenter: Segmenter
    label_map: LabelMap
    config: ModelConfig

    @property
    def directory(self):
        return ModelDir(self.folder / "model", "transfernet", self.config, self.label_map)
