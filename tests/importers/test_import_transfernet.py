"""Caffe weights into the Keras model: its inferred shape, and every way to misfit."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
from caffe_writer import write_caffemodel

from tfseg.config import ModelConfig, preset
from tfseg.errors import InputError
from tfseg.importers.caffe import import_transfernet, infer_config, load_caffemodel
from tfseg.models import build_transfernet

SMALL = ModelConfig(
    image_size=16,
    num_labels=5,
    encoder_blocks=((2, 4), (1, 6), (2, 8)),
    factors=7,
    classification_units=9,
)


def _layers(config: ModelConfig, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Makes random Caffe layers for a configuration, from SPEC 3 and not from a Keras model."""
    rng = np.random.default_rng(seed)
    layers = {}

    def add(name: str, *shape: int, bias: int) -> None:
        layers[name] = [rng.normal(size=s).astype(np.float32) for s in (shape, (bias,))]

    channels = 3
    for block, (depth, width) in enumerate(config.encoder_blocks, 1):
        for conv in range(1, depth + 1):
            add(f"conv{block}_{conv}", width, channels, 3, 3, bias=width)
            channels = width
    positions = config.map_size**2
    add("feat_embed", config.factors, channels * positions, bias=config.factors)
    add("cls_embed", config.factors, config.num_labels, bias=config.factors)
    if config.combined_embed:
        add("combined_embed", config.factors, config.factors, bias=config.factors)
    add("att-w", positions, config.factors, bias=positions)
    add("ip1", config.classification_units, channels, bias=config.classification_units)
    units = config.classification_units
    add("cls-score-voc-att", config.num_labels, units, bias=config.num_labels)
    blocks = config.encoder_blocks[:-1]
    channels = blocks[-1][1]
    add(f"deconv{len(blocks) + 1}_1", 1, channels, 3, 3, bias=channels)
    for block in range(len(blocks), 0, -1):
        depth, width = blocks[block - 1]
        below = blocks[block - 2][1] if block > 1 else blocks[0][1]
        for conv in range(1, depth + 1):
            out = width if conv < depth else below
            add(f"deconv{block}_{conv}", channels, out, 3, 3, bias=out)
            channels = out
    add("seg-score", 2, channels, 1, 1, bias=2)
    return layers


@pytest.fixture(scope="module")
def model():
    return build_transfernet(SMALL)


def _weights(model) -> dict[str, np.ndarray]:
    return {
        key: golden.to_caffe(key, variable.numpy(), SMALL)
        for key, variable in golden.parameters(model).items()
    }


def _assert_holds(model, layers: dict[str, list[np.ndarray]]) -> None:
    weights = _weights(model)
    assert len(weights) == 2 * len(layers)
    for name, blobs in layers.items():
        for index, blob in enumerate(blobs):
            np.testing.assert_array_equal(weights[f"{name}/{index}"], blob)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL.replace(combined_embed=False),
        SMALL.replace(encoder_blocks=((1, 4), (3, 6)), image_size=6, num_labels=2),
        preset("official").replace(factors=8),
    ],
)
def test_infers_the_configuration(config: ModelConfig):
    assert infer_config(_layers(config)) == config


def test_infers_the_golden_network():
    layers = load_caffemodel(golden.FOLDER / "weights.caffemodel")
    config = infer_config(layers)
    inputs = golden.arrays("inputs")
    assert config.image_size == inputs["data"].shape[-1]
    assert config.num_labels == inputs["cls-label"].shape[1]


@pytest.mark.parametrize("form", [{}, {"v1": True, "legacy": True}, {"legacy": True}])
def test_sets_every_weight(tmp_path: Path, model, form: dict):
    """From both generations of files; legacy blobs have four dimensions."""
    layers = _layers(SMALL, seed=len(form))
    write_caffemodel(tmp_path / "a.caffemodel", layers, **form)
    assert infer_config(load_caffemodel(tmp_path / "a.caffemodel")) == SMALL
    assert import_transfernet(tmp_path / "a.caffemodel", model) == ()
    _assert_holds(model, layers)


def test_takes_layers_and_leaves_them_alone(model):
    layers = _layers(SMALL, seed=4)
    names = list(layers)
    assert import_transfernet(layers, model) == ()
    assert list(layers) == names
    _assert_holds(model, layers)


def test_without_combined_embed():
    config = SMALL.replace(combined_embed=False)
    layers = _layers(config)
    model = build_transfernet(config)
    assert import_transfernet(layers, model) == ()
    _assert_holds(model, layers)


def test_without_classification_head():
    """Weights for the authors' deploy.prototxt: the head stays as it is, and this is said."""
    layers = _layers(SMALL)
    del layers["ip1"], layers["cls-score-voc-att"]
    config = infer_config(layers)
    assert config == SMALL.replace(classification_units=512)
    model = build_transfernet(config)
    before = _weights(model)
    assert import_transfernet(layers, model) == ("ip1", "cls_score")
    after = _weights(model)
    for key in before:
        changed = not np.array_equal(before[key], after[key])
        assert changed != key.startswith(("ip1/", "cls-score-voc-att/"))


@pytest.mark.parametrize("name", list(_layers(SMALL)))
def test_a_missing_layer(model, name: str):
    layers = _layers(SMALL, seed=1)
    shape = str(layers.pop(name)[0].shape)
    before = _weights(model)
    with pytest.raises(InputError) as error:
        import_transfernet(layers, model)
    assert repr(name) in str(error.value) and shape in str(error.value)
    after = _weights(model)
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", list(_layers(SMALL)))
def test_another_shape(model, name: str):
    """Of the weight, transposed or one larger; of the bias; and too few or too many blobs."""
    right = _layers(SMALL)[name]
    weight, bias = right
    larger = np.concatenate([weight, weight[:1]])
    for wrong in (
        [larger, bias],
        [weight, np.append(bias, np.float32(0))],
        [weight],
        [weight, bias, bias],
        *([[weight.T, bias]] if weight.T.shape != weight.shape else []),
    ):
        layers = {**_layers(SMALL), name: wrong}
        with pytest.raises(InputError) as error:
            import_transfernet(layers, model)
        assert repr(name) in str(error.value)
        assert str(wrong[0].shape) in str(error.value) and str(weight.shape) in str(error.value)


def test_a_layer_left_over(tmp_path: Path, model):
    path = tmp_path / "more.caffemodel"
    write_caffemodel(path, {**_layers(SMALL), "fc6": [np.zeros((3, 4), np.float32)]})
    with pytest.raises(InputError, match=r"more\.caffemodel.*'fc6' of shape \(3, 4\) is left over"):
        import_transfernet(path, model)


def test_another_network(model):
    """Many misfits are cut down to a readable message."""
    with pytest.raises(InputError, match=r"and \d+ more$"):
        import_transfernet(_layers(SMALL.replace(encoder_blocks=((1, 3), (1, 3)))), model)


def test_every_truncation_between_layers_is_noticed(tmp_path: Path, model):
    """What the wire format cannot tell is told here, by name."""
    layers = _layers(SMALL)
    names = list(layers)
    for count in range(1, len(names)):
        kept = {name: layers[name] for name in names[:count]}
        path = tmp_path / "cut.caffemodel"
        write_caffemodel(path, kept)
        with pytest.raises(InputError, match=r"cut\.caffemodel.* is missing"):
            import_transfernet(path, model)


def _without(name: str) -> dict[str, list[np.ndarray]]:
    layers = _layers(SMALL)
    del layers[name]
    return layers


def _changed(name: str, *shape: int) -> dict[str, list[np.ndarray]]:
    return {**_layers(SMALL), name: [np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)]}


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({}, "layer 'conv1_1' is missing"),
        (_without("conv1_1"), "layer 'conv1_1' is missing"),
        (_without("conv2_1"), "layer 'conv2_1' is missing"),
        (_without("conv3_1"), "layer 'conv3_1' is missing"),
        (_without("feat_embed"), "layer 'feat_embed' is missing"),
        (_without("cls_embed"), "layer 'cls_embed' is missing"),
        (_without("att-w"), "layer 'att-w' is missing"),
        (_changed("conv1_2", 5, 4, 3, 3), "'conv1_2' has 5 channels, expected 4"),
        (_changed("conv1_2", 4, 36), r"'conv1_2' has a weight of shape \(4, 36\)"),
        (_changed("att-w", 15, 7), "15 positions, expected a square"),
        (_changed("att-w", 9, 7), "128 inputs, expected 72"),
        (_changed("cls_embed", 7, 300), "num_labels=300"),
        (_changed("att-w", 4, 4, 7), r"\(4, 4, 7\), expected \(outputs, inputs\)"),
    ],
)
def test_shapes_that_make_no_network(layers: dict, says: str):
    with pytest.raises(InputError, match=says) as error:
        infer_config(layers, origin="my.caffemodel")
    assert str(error.value).startswith("my.caffemodel: ")
