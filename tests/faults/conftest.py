"""The inputs of the commands, made once."""

import shutil

import pytest
from commands import World
from trained_model import write_model_dir

from tfseg.data.labels import LabelMap


@pytest.fixture(scope="session")
def world(synthetic_dir, synthetic_records, tmp_path_factory) -> World:
    """Small inputs for every command."""
    folder = tmp_path_factory.mktemp("world")
    label_map = LabelMap.load(synthetic_dir / "labels.json")
    images = sorted((synthetic_dir / "VOCdevkit/VOC2012/JPEGImages").iterdir())
    targets = label_map.names("target")
    for number, path in enumerate(images):
        target = folder / "classes" / targets[number % 3] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    write_model_dir(folder / "model", label_map)
    return World(synthetic_dir, folder / "classes", synthetic_records, folder / "model")
