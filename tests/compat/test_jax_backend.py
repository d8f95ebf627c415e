"""The same layers and network under Keras' JAX backend, in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfseg.config import preset
from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D
from tfseg.losses import label_cross_entropy, mask_cross_entropy
from tfseg.models.transfernet import build_transfernet

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install jax"
    ),
]


def test_jax_gives_the_numbers_of_tensorflow(tmp_path):
    keras.utils.set_random_seed(0)
    model = build_transfernet(preset("tiny"))
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.standard_normal((2, 8, 6, 3)), 0).astype(np.float32)
    data = {
        "image": rng.uniform(0, 255, (2, 96, 96, 3)).astype(np.float32),
        "label": np.array([1, 20], np.int32),
        "mask": rng.choice([0, 1, 255], (2, 96, 96)).astype(np.uint8),
        "maps": maps,
        "upstream": rng.standard_normal((2, 4, 3, 3)).astype(np.float32),
        **{f"weight{index}": weight for index, weight in enumerate(model.get_weights())},
    }
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, **data)
    subprocess.run(
        [sys.executable, Path(__file__).with_name("jax_network.py"), source, target],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    results = dict(np.load(target))

    for name, expected in model({"image": data["image"], "label": data["label"]}).items():
        expected = np.asarray(expected)
        np.testing.assert_allclose(
            results[name], expected, rtol=0, atol=1e-3 * np.abs(expected).max(), err_msg=name
        )
    loss_sum, valid = mask_cross_entropy(data["mask"], results["mask_logits"])
    np.testing.assert_allclose(results["loss_sum"], loss_sum, rtol=1e-5)
    assert results["valid"] == valid
    label_loss = label_cross_entropy(data["label"], results["class_logits"])
    np.testing.assert_allclose(results["label_loss"], label_loss, rtol=1e-4)

    pooled, switches = MaxPooling2DWithSwitches()(maps)
    unpool = MaxUnpooling2D()
    np.testing.assert_array_equal(results["pooled"], pooled)
    np.testing.assert_array_equal(results["switches"], switches)
    np.testing.assert_array_equal(results["unpooled"], unpool((pooled, switches)))
    np.testing.assert_array_equal(results["pool_gradient"], unpool((data["upstream"], switches)))
    np.testing.assert_array_equal(results["one_hot"], [[0, 1, 0], [np.nan] * 3, [np.nan] * 3])
