"""VGG-16 weights from a file in the layout of the one that Keras publishes."""

import h5py
import keras
import numpy as np
import pytest

from tfseg.config import preset
from tfseg.errors import InputError
from tfseg.models.encoder import build_encoder, load_encoder_weights

CONFIG = preset("official").replace(image_size=32)
PUBLISHED_NAME = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture(scope="module")
def vgg():
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    return model


def _write(path, layers, root=None, names=("{}_W_1:0", "{}_b_1:0")):
    """The HDF5 layout of Keras 1 and 2: a group for each layer, weights named in an attribute."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            group = top.create_group(name)
            stored = [pattern.format(name) for pattern in names][: len(weights)]
            group.attrs["weight_names"] = [weight.encode() for weight in stored]
            for weight, array in zip(stored, weights, strict=True):
                group.create_dataset(weight, data=array)
    return str(path)


def _arrays(vgg):
    return {layer.name: layer.get_weights() for layer in vgg.layers}


@pytest.mark.parametrize("form", ["notop", "nested_names", "whole_model", "with_top"])
def test_features_equal_those_of_keras_vgg16(vgg, tmp_path, form):
    layers = _arrays(vgg)
    if form == "with_top":
        layers["fc1"] = [np.zeros((8, 8), np.float32), np.zeros(8, np.float32)]
    path = _write(
        tmp_path / PUBLISHED_NAME,
        layers,
        root="model_weights" if form == "whole_model" else None,
        names=("{}/kernel:0", "{}/bias:0") if form == "nested_names" else ("{}_W_1:0", "{}_b_1:0"),
    )
    encoder = build_encoder(CONFIG)
    load_encoder_weights(encoder, CONFIG, path)
    image = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    theirs = keras.Model(vgg.input, vgg.get_layer("block5_conv3").output)
    expected = np.asarray(theirs(image[..., ::-1] - np.float32(CONFIG.bgr_mean)))
    actual = np.asarray(encoder(image)["features"])
    np.testing.assert_allclose(actual, expected, atol=1e-5 * expected.max())
    assert actual.max() > 0


def test_keras_own_legacy_writer_is_understood(vgg, tmp_path):
    path = str(tmp_path / "vgg16_notop.h5")
    vgg.save(path)
    encoder = build_encoder(CONFIG)
    load_encoder_weights(encoder, CONFIG, path)
    for ours, theirs in zip(encoder.get_weights(), vgg.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_none_keeps_the_random_weights(vgg):
    encoder = build_encoder(CONFIG)
    before = encoder.get_weights()
    load_encoder_weights(encoder, CONFIG, "none")
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_missing_file_says_what_to_get(tmp_path):
    path = str(tmp_path / "nothing.h5")
    _assert_refused(path, "nothing.h5: no such file", PUBLISHED_NAME, "58.9 MB", "`imagenet`", "`none`")
    _assert_refused(str(tmp_path), "no such file", PUBLISHED_NAME)


def test_wrong_files_say_what_to_get(vgg, tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("these are no weights")
    _assert_refused(str(text), "not a Keras weights file", PUBLISHED_NAME)

    whole = tmp_path / "whole.h5"
    _write(whole, _arrays(vgg))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _assert_refused(str(cut), "not a Keras weights file", PUBLISHED_NAME)

    other = _write(tmp_path / "resnet.h5", {"conv1": [np.zeros((7, 7, 3, 64)), np.zeros(64)]})
    _assert_refused(other, "conv1_1", PUBLISHED_NAME)

    missing = _arrays(vgg)
    del missing["block4_conv2"]
    _assert_refused(_write(tmp_path / "missing.h5", missing), "conv4_2", PUBLISHED_NAME)

    wide = {**_arrays(vgg), "block3_conv1": [np.zeros((3, 3, 128, 300)), np.zeros(300)]}
    _assert_refused(_write(tmp_path / "wide.h5", wide), "conv3_1", PUBLISHED_NAME)

    new = str(tmp_path / "new.weights.h5")
    vgg.save_weights(new)
    _assert_refused(new, "conv1_1", PUBLISHED_NAME)


def test_failed_download_is_a_clear_error(monkeypatch):
    def refuse(**_):
        raise Exception("URL fetch failure on https://...")

    monkeypatch.setattr(keras.applications, "VGG16", refuse)
    _assert_refused("imagenet", "download failed", PUBLISHED_NAME, "`none`")


def test_downloaded_weights_are_used(vgg, monkeypatch):
    monkeypatch.setattr(keras.applications, "VGG16", lambda **_: vgg)
    encoder = build_encoder(CONFIG)
    load_encoder_weights(encoder, CONFIG, "imagenet")
    for ours, theirs in zip(encoder.get_weights(), vgg.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("source", ["imagenet", "some.h5"])
def test_other_encoders_have_no_such_weights(source):
    config = preset("tiny")
    with pytest.raises(InputError, match="--encoder_weights=none"):
        load_encoder_weights(build_encoder(config), config, source)


def _assert_refused(source, *words):
    with pytest.raises(InputError) as caught:
        load_encoder_weights(build_encoder(CONFIG), CONFIG, source)
    for word in words:
        assert word in str(caught.value)
