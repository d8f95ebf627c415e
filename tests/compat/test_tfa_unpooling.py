"""Our unpooling against `tfa.layers.MaxUnpooling2D`, which lives in an environment of its own."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D, argmax_to_switches

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tfa" / "bin" / "python"

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-tfa: `make test-compat` builds it"),
]


def _maps():
    rng = np.random.default_rng(0)
    relu = np.maximum(rng.standard_normal((3, 16, 12, 7)), 0).astype(np.float32)
    return {
        "relu": relu,
        "sparse": np.where(rng.random(relu.shape) < 0.8, 0, relu).astype(np.float32),
        "ties": rng.integers(0, 3, (2, 8, 8, 4)).astype(np.float32),
        "zeros": np.zeros((2, 4, 6, 3), np.float32),
        "signed": rng.standard_normal((2, 10, 14, 5)).astype(np.float32),
        "encoder_sized": np.maximum(rng.standard_normal((2, 80, 80, 32)), 0).astype(np.float32),
    }


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    data = {}
    for name, maps in _maps().items():
        values, argmax = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")
        upstream = np.random.default_rng(1).standard_normal(maps.shape).astype(np.float32)
        data.update({f"{name}/values": values, f"{name}/argmax": argmax, f"{name}/upstream": upstream})
    folder = tmp_path_factory.mktemp("tfa")
    np.savez(folder / "in.npz", **{key: np.asarray(value) for key, value in data.items()})
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    subprocess.run(
        [PYTHON, Path(__file__).with_name("tfa_unpool.py"), folder / "in.npz", folder / "out.npz"],
        check=True,
        env={**clean, "TF_CPP_MIN_LOG_LEVEL": "2"},
        timeout=300,
    )
    return {**data, **np.load(folder / "out.npz")}


def _bits(x):
    return np.asarray(x).view(np.uint32)


def test_it_is_the_pinned_reference(theirs):
    assert theirs["versions"].tolist() == ["2.15.1", "0.23.0"]


@pytest.mark.parametrize("name", _maps())
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_bit_equal(theirs, name, jit_compile):
    layer = MaxUnpooling2D()
    unpool = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    switches = argmax_to_switches(theirs[f"{name}/argmax"])
    actual = unpool((theirs[f"{name}/values"], switches))
    np.testing.assert_array_equal(_bits(actual), _bits(theirs[name]))
    # The same from our own pooling: its switches are those that the argmax stands for.
    pooled, own = MaxPooling2DWithSwitches()(_maps()[name])
    np.testing.assert_array_equal(_bits(unpool((pooled, own))), _bits(theirs[name]))


@pytest.mark.parametrize("name", _maps())
def test_gradients_are_bit_equal(theirs, name):
    values = tf.constant(theirs[f"{name}/values"])
    switches = argmax_to_switches(theirs[f"{name}/argmax"])
    with tf.GradientTape() as tape:
        tape.watch(values)
        unpooled = MaxUnpooling2D()((values, switches))
    gradient = tape.gradient(unpooled, values, theirs[f"{name}/upstream"])
    np.testing.assert_array_equal(_bits(gradient), _bits(theirs[f"{name}/gradient"]))
