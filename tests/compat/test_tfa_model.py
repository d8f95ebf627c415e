"""docs/tensorflow-addons.md: how a model of tensorflow-addons is moved."""

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tfa" / "bin" / "python"

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-tfa: `make test-compat` builds it"),
]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfa_model")
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    subprocess.run(
        [PYTHON, Path(__file__).with_name("tfa_model.py"), folder],
        check=True,
        env={**clean, "TF_CPP_MIN_LOG_LEVEL": "2"},
        timeout=600,
    )
    return folder, dict(np.load(folder / "io.npz"))


def test_weights_move_to_a_network_of_our_layers(old):
    folder, io = old
    image = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(image)
    values, switches = MaxPooling2DWithSwitches()(x)
    values = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(values)
    x = MaxUnpooling2D()([values, switches])
    network = keras.Model(image, keras.layers.Conv2D(2, 1, name="score")(x))
    # Keras 3 reads a Keras 2 file by layer name; what has no weights does not count.
    network.load_weights(folder / "old.h5", by_name=True)
    np.testing.assert_allclose(network(io["image"]), io["output"], rtol=1e-5, atol=1e-6)


def test_a_saved_model_goes_on_without_tensorflow_addons(old):
    folder, io = old
    serve = tf.saved_model.load(str(folder / "saved")).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    (found,) = serve(**{name: tf.constant(io["image"])}).values()
    np.testing.assert_allclose(found, io["output"], rtol=1e-5, atol=1e-6)
