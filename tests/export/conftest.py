"""One export for all tests of this folder, written by the command."""

import re
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from small_export import CONFIG, LABEL_MAP, REPOSITORY, Exported, make_network

from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import build_classifier


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Version 1 by `python -m export.saved_model`, and the Keras model that it was made from."""
    folder = tmp_path_factory.mktemp("export")
    network = make_network()
    keras.utils.set_random_seed(1)
    classifier = build_classifier(CONFIG)
    # Around the threshold, so that images differ in their labels.
    head = classifier.get_layer("classifier_head").get_layer("score")
    head.kernel.assign(30.0 * head.kernel)
    save_model_dir(ModelDir(folder / "model", "transfernet", CONFIG, LABEL_MAP), network, classifier)
    command = [sys.executable, "-m", "export.saved_model", f"--model_dir={folder / 'model'}"]
    command.append(f"--output_dir={folder / 'out'}")
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-3000:]
    said = (
        r"out/1: written, [0-9.]+ MB; reloaded, it differs .* by at most [0-9.]+e[-+]\d+; masks agree in 100"
    )
    assert re.search(said, finished.stdout), finished.stdout
    segmenter = Segmenter(KerasNetwork(network, classifier), LABEL_MAP)
    return Exported(folder, folder / "out/1", network, classifier, segmenter, LABEL_MAP, CONFIG)


@pytest.fixture(scope="session")
def signatures(exported):
    """The loaded signatures; what they belong to must stay referenced."""
    loaded = tf.saved_model.load(str(exported.version_dir))
    yield loaded.signatures
    del loaded
