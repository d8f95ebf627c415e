"""Network and update against plain PyTorch on the same weights: two libraries, one system of equations."""

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg.config import ModelConfig
from tfseg.models import build_transfernet
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.stages import SegmentationStage
from tfseg.training.step import build_train_step

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-torch" / "bin" / "python"
# The official structure, narrow: no two widths are alike.
CONFIG = ModelConfig(
    image_size=32,
    num_labels=5,
    encoder_blocks=((2, 4), (2, 6), (3, 8)),
    feature_scale=0.02,
    factors=7,
    classification_units=9,
    decoder_init="he",
)

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-torch: `make test-compat` builds it"),
]


def _batch():
    rng = np.random.default_rng(0)
    batch = {}
    for domain in ("source", "target"):
        mask = rng.choice([0, 1, 255], (2, 32, 32)) if domain == "source" else np.full((2, 32, 32), 255)
        batch[domain] = {
            "image": rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32),
            "label": rng.integers(1, 6, 2).astype(np.int32),
            "mask": mask.astype(np.uint8),
        }
    return batch


def test_torch_gives_the_outputs_and_losses_of_keras(tmp_path):
    keras.utils.set_random_seed(0)
    model, batch = build_transfernet(CONFIG), _batch()
    for path in (("attention", "att_w"), ("decoder", "seg_score")):
        kernel = model.get_layer(path[0]).get_layer(path[1]).kernel
        kernel.assign(100 * kernel)  # Else attention and masks are next to uniform.
    arrays = {f"weight{index}": weight for index, weight in enumerate(model.get_weights())}
    arrays |= {f"{domain}/{name}": x for domain, part in batch.items() for name, x in part.items()}
    np.savez(tmp_path / "in.npz", config=CONFIG.to_json(), **arrays)
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    subprocess.run(
        [PYTHON, Path(__file__).with_name("torch_network.py"), tmp_path / "in.npz", tmp_path / "out.npz"],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    theirs = dict(np.load(tmp_path / "out.npz"))

    source = {name: batch["source"][name] for name in ("image", "label")}
    for name, expected in model(source).items():
        if name in theirs:
            expected = np.asarray(expected)
            largest = np.abs(expected).max()
            np.testing.assert_allclose(theirs[name], expected, rtol=0, atol=1e-4 * largest, err_msg=name)

    stage = SegmentationStage(model, joint=True)
    optimizer = AdamWithMultipliers(official_multipliers(stage.trained), learning_rate=1e-3)
    optimizer.build(stage.trained)
    update = build_train_step(stage, optimizer, ("source", "target"), 4, 1)
    whole = tf.nest.map_structure(tf.constant, batch)
    for domain in whole:
        whole[domain]["present"] = tf.zeros((2, 5))
    losses = [float(update(whole)["loss"]) for _ in range(3)]
    assert losses[0] - losses[2] > 0.05
    np.testing.assert_allclose(theirs["losses"], losses, rtol=1e-3)
