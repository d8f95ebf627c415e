"""The separate classifier's Caffe weights, whose layer names nobody published."""

from __future__ import annotations

import numpy as np
import pytest

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.importers.caffe_classifier import (
    import_classifier,
    infer_classifier_config,
    is_classifier,
)
from tfseg.models import build_classifier

# fc6 sees 2x2 of the 5x5 map behind pool5, which leaves 4x4.
CONFIG = ModelConfig(image_size=20, num_labels=3, encoder_blocks=((1, 4), (2, 6)), classifier_units=5)


def _layers(names=("fc6", "fc7", "score"), dense: bool = False) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv1_1": (4, 3, 3, 3),
        "conv2_1": (6, 4, 3, 3),
        "conv2_2": (6, 6, 3, 3),
        names[0]: (5, 6 * 2 * 2) if dense else (5, 6, 2, 2),
        names[1]: (5, 5) if dense else (5, 5, 1, 1),
        names[2]: (3, 5) if dense else (3, 5, 1, 1),
    }
    return {
        name: [rng.normal(size=s).astype(np.float32) / 4, rng.normal(size=s[0]).astype(np.float32)]
        for name, s in shapes.items()
    }


def _reference(features: np.ndarray, layers: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Computes the head in NumPy from Caffe's layouts: [B, H, W, C] to logits."""
    (w6, b6), (w7, b7), (w8, b8) = list(layers.values())[-3:]
    x = features.transpose(0, 3, 1, 2)
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))
    scores = []
    for row in range(x.shape[2] - 1):
        for column in range(x.shape[3] - 1):
            patch = x[:, :, row : row + 2, column : column + 2].reshape(batch, -1)
            hidden = np.maximum(patch @ w6.reshape(5, -1).T + b6, 0)
            hidden = np.maximum(hidden @ w7.reshape(5, 5).T + b7, 0)
            scores.append(hidden @ w8.reshape(3, 5).T + b8)
    return np.max(scores, axis=0)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("names", [("fc6", "fc7", "score"), ("fc6-conv", "conv-fc7", "cls-score")])
def test_computes_what_the_blobs_say(dense: bool, names: tuple[str, str, str]):
    layers = _layers(names, dense)
    assert is_classifier(layers)
    assert infer_classifier_config(layers) == CONFIG
    model = build_classifier(CONFIG)
    import_classifier(layers, model, CONFIG)
    images = np.random.default_rng(1).uniform(0, 255, (2, 20, 20, 3)).astype(np.float32)
    features = np.asarray(model.get_layer("encoder")(images)["features"])
    got = np.asarray(model({"image": images})["class_logits"])
    np.testing.assert_allclose(got, _reference(features, layers), rtol=1e-4)


def test_goes_with_a_transfernet():
    base = CONFIG.replace(factors=7, classifier_units=4096)
    assert infer_classifier_config(_layers(), base) == CONFIG.replace(factors=7)


def test_official_size():
    layers = {
        f"conv{block}_{conv}": [np.empty((width, 1, 1, 1))]
        for block, (depth, width) in enumerate(ModelConfig().encoder_blocks, 1)
        for conv in range(1, depth + 1)
    }
    layers |= {
        "fc6": [np.empty((4096, 512, 7, 7), "u1")],
        "fc7": [np.empty((4096, 4096, 1, 1), "u1")],
        "fc8": [np.empty((80, 4096, 1, 1))],
    }
    assert infer_classifier_config(layers) == ModelConfig()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fc8": (3, 5)}, "fc6, fc7, score, fc8; a classifier has three"),
        ({"fc6": (5, 6 * 3)}, r"\(5, 18\)"),
        ({"fc7": (4, 5)}, r"\(4, 5\)"),
        ({"score": (300, 5)}, "num_labels=300"),
    ],
)
def test_misfits(change: dict, says: str):
    layers = _layers()
    for name, shape in change.items():
        layers[name] = [np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)]
    with pytest.raises(InputError, match=says):
        infer_classifier_config(layers, origin="c.caffemodel")


@pytest.mark.parametrize("name", list(_layers()))
def test_another_shape(name: str):
    layers = _layers()
    layers[name][0] = layers[name][0][:-1]
    with pytest.raises(InputError, match=rf"'{name}' has .* expected"):
        import_classifier(layers, build_classifier(CONFIG), CONFIG)
