import os

import keras
import numpy as np
import numpy_network
import pytest
import tensorflow as tf
from small_networks import THREE_BLOCKS

from tfseg.config import preset
from tfseg.errors import InputError
from tfseg.layers import gram_matrix
from tfseg.losses import mask_cross_entropy
from tfseg.models import BUILDERS
from tfseg.models.attention import build_attention
from tfseg.models.transfernet import build_transfernet


def _build(config, seed=0):
    keras.utils.set_random_seed(seed)
    return _sharpen(build_transfernet(config), seed)


def _sharpen(model, seed=0):
    """Makes the attention far from uniform and the biases other than zero."""
    rng = np.random.default_rng(seed)
    for layer in _layers(model).values():
        if layer.name == "att_query":  # Starts from 0, and has no bias.
            layer.kernel.assign(rng.normal(0, 2.0, layer.kernel.shape))
            continue
        kernel, bias = layer.get_weights()
        scale = 300.0 if layer.name == "att_w" else 1.0
        layer.set_weights([scale * kernel, rng.normal(0, 0.1, bias.shape)])
    return model


def _layers(model):
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found.update(_layers(layer))
        elif layer.weights:
            found[layer.name] = layer
    return found


def _weights(model):
    return {
        name: [weight.astype(np.float64) for weight in layer.get_weights()]
        for name, layer in _layers(model).items()
    }


def _inputs(config, batch=3, seed=1):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (batch, config.image_size, config.image_size, 3))
    label = rng.integers(1, config.num_labels + 1, batch)
    return {"image": image.astype(np.float32), "label": label.astype(np.int32)}


def _assert_close(actual, expected, relative=1e-4):
    expected = np.asarray(expected)
    atol = relative * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_names_shapes_and_dtypes(name):
    config = THREE_BLOCKS if name == "small" else preset(name)
    model = build_transfernet(config)
    assert {k: v.dtype for k, v in model.input.items()} == {"image": "float32", "label": "int32"}
    outputs = model(_inputs(config, batch=2))
    side, size = config.map_size, config.image_size
    shapes = {
        "attention": (2, side, side),
        "densified": (2, side, side),
        "class_logits": (2, config.num_labels),
        "mask_logits": (2, size, size, 2),
    }
    assert {k: tuple(v.shape) for k, v in outputs.items()} == shapes
    assert all(v.dtype == "float32" for v in outputs.values())
    encoded = model.get_layer("encoder")(_inputs(config, batch=2)["image"])
    for block in range(1, config.num_poolings + 1):
        switches = encoded[f"switches{block}"]
        channels = config.encoder_blocks[block - 1][1]
        assert tuple(switches.shape) == (2, size >> block, size >> block, channels)
        assert switches.dtype == "uint8"
        # The decoder unpools as many channels as the encoder pooled.
        unpool = model.get_layer("decoder").get_layer(f"unpool{block}")
        assert unpool.output.shape[-1] == channels


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"combined_embed": False},
        {"gating": "additive"},
        {"gating": "concat"},
        {"gating": "concat", "combined_embed": False},
        {"decoder_input": "attention"},
        {"joint_gradient": False},
        {"feature_scale": 1.0 / 3.0},
        {"encoder_padding": "symmetric"},
        {"label_queries": True},
    ],
    ids=str,
)
def test_small_network_equals_numpy(changes):
    _compare_with_numpy(THREE_BLOCKS.replace(**changes))


def test_tiny_network_equals_numpy():
    _compare_with_numpy(preset("tiny"), batch=2)


@pytest.mark.parametrize("padding", ["zero", "symmetric"])
def test_only_zero_padding_tells_where_the_border_is(padding):
    config = THREE_BLOCKS.replace(encoder_padding=padding)
    image = np.full((1, config.image_size, config.image_size, 3), 200, np.float32)
    features = np.asarray(_build(config).get_layer("encoder")(image)["features"])
    assert features.max() > 0
    is_alike = np.allclose(features, features[:, :1, :1], rtol=1e-4)
    assert is_alike == (padding == "symmetric")


def _compare_with_numpy(config, batch=3):
    model = _build(config)
    inputs, weights = _inputs(config, batch), _weights(model)
    encoded = {k: np.asarray(v) for k, v in model.get_layer("encoder")(inputs["image"]).items()}
    outputs = {k: np.asarray(v) for k, v in model(inputs).items()}

    image = inputs["image"].astype(np.float64)
    features, switches, margins = numpy_network.encoder(config, weights, image)
    _assert_close(encoded["features"], features)
    assert np.count_nonzero(features) > 0.1 * features.size
    for block, (switch, margin) in enumerate(zip(switches, margins, strict=True), start=1):
        # Where float32 cannot tell two candidates apart, either switch is right.
        differs = encoded[f"switches{block}"] != switch
        assert margin[differs].max(initial=0.0) < 1e-4 * margin.max()
        assert differs.mean() < 1e-3

    located = numpy_network.attention(config, weights, features, inputs["label"])
    for name, expected in located.items():
        _assert_close(outputs[name], expected)
    assert outputs["attention"].max() > 2.0 / config.map_size**2  # Not a uniform attention.

    taken = [encoded[f"switches{block}"] for block in range(1, config.num_poolings + 1)]
    mask_logits = numpy_network.decoder(config, weights, located[config.decoder_input], taken)
    _assert_close(outputs["mask_logits"], mask_logits)
    assert np.ptp(mask_logits) > 0


def test_compiled_network_equals_eager():
    model = _build(THREE_BLOCKS)
    inputs = _inputs(THREE_BLOCKS)
    for jit_compile in (False, True):
        compiled = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
        for name, expected in model(inputs).items():
            _assert_close(compiled(inputs)[name], expected, relative=1e-5)


def test_densified_attention_is_the_gram_matrix_times_attention():
    """Equation (10) on the built network."""
    model = _build(THREE_BLOCKS)
    inputs = _inputs(THREE_BLOCKS)
    outputs = model(inputs)
    features = THREE_BLOCKS.feature_scale * model.get_layer("encoder")(inputs["image"])["features"]
    gram = np.asarray(gram_matrix(features))
    attention = np.asarray(outputs["attention"]).reshape(3, -1)
    _assert_close(
        np.asarray(outputs["densified"]).reshape(3, -1),
        np.einsum("bmn,bn->bm", gram, attention),
        relative=1e-5,
    )
    assert np.asarray(outputs["densified"]).min() >= 0
    np.testing.assert_allclose(attention.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"gating": "additive"}, {"gating": "concat"}, {"label_queries": True}], ids=str
)
def test_label_reaches_the_class_logits_through_z_only(changes):
    """Class logits and s are functions of features and attention: without them no path is left.

    Keras refuses to build a model whose outputs need an input that is not given, so that the built
    model is the proof for every weight and input at once.
    """
    keras.utils.set_random_seed(0)
    model = _sharpen(build_attention(THREE_BLOCKS.replace(**changes)))
    features, attention = model.input["features"], model.get_layer("att_normalized").output
    without_label = keras.Model(
        [features, attention], [model.output["class_logits"], model.output["densified"]]
    )
    z = model.get_layer("soft_att").output
    keras.Model(z, model.output["class_logits"])
    with pytest.raises(ValueError, match="not connected"):
        keras.Model(features, model.output["class_logits"])

    # And by numbers: hold the attention, change the label, and the logits stay.
    values = tf.random.stateless_uniform((5, 4, 4, 8), (0, 0), maxval=90.0)
    labels = tf.range(1, 6)
    outputs = model({"features": values, "label": labels})
    held = without_label([values, outputs["attention"]])
    np.testing.assert_array_equal(held[0], outputs["class_logits"])
    np.testing.assert_array_equal(held[1], outputs["densified"])


def test_without_attention_weights_all_labels_look_alike():
    model = _build(THREE_BLOCKS)
    image = np.repeat(_inputs(THREE_BLOCKS, batch=1)["image"], 5, axis=0)
    inputs = {"image": image, "label": np.arange(1, 6, dtype=np.int32)}
    logits = np.asarray(model(inputs)["class_logits"])
    assert np.ptp(logits, axis=0).max() > 1e-3 * np.abs(logits).max()

    att_w = _layers(model)["att_w"]
    att_w.set_weights([np.zeros_like(weight) for weight in att_w.get_weights()])
    for name, value in model(inputs).items():
        value = np.asarray(value)
        np.testing.assert_allclose(value, np.repeat(value[:1], 5, axis=0), rtol=1e-5, atol=1e-6, err_msg=name)


def test_each_channel_is_unpooled_by_its_own_switches():
    config = THREE_BLOCKS
    decoder = _build(config).get_layer("decoder")
    rng = np.random.default_rng(2)
    inputs = {"densified": rng.uniform(0.5, 1, (1, 4, 4)).astype(np.float32)}
    for block, (_, channels) in enumerate(config.encoder_blocks[:-1], start=1):
        side = config.image_size >> block
        switches = rng.integers(0, 4, (1, side, side, channels))
        inputs[f"switches{block}"] = switches.astype(np.uint8)
    for block in (1, 2):
        probe = keras.Model(decoder.input, decoder.get_layer(f"unpool{block}").output)
        before = np.asarray(probe(inputs))
        for channel in range(before.shape[-1]):
            changed = inputs[f"switches{block}"].copy()
            changed[..., channel] = (changed[..., channel] + 1) % 4
            after = np.asarray(probe({**inputs, f"switches{block}": changed}))
            differs = (before != after).any(axis=(0, 1, 2))
            alive = before[..., channel].any()
            np.testing.assert_array_equal(
                np.flatnonzero(differs), [channel] if alive else [], err_msg=f"unpool{block}"
            )
        assert before.any()


@pytest.mark.parametrize("decoder_input", ["densified", "attention"])
def test_segmentation_loss_reaches_the_attention_only_if_asked(decoder_input):
    mask = np.random.default_rng(3).integers(0, 2, (3, 16, 16)).astype(np.uint8)
    for joint_gradient in (True, False):
        config = THREE_BLOCKS.replace(joint_gradient=joint_gradient, decoder_input=decoder_input)
        model = _build(config)
        layers = _layers(model)
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(_inputs(config))
            loss, _ = mask_cross_entropy(mask, outputs["mask_logits"])
            class_sum = tf.reduce_sum(outputs["class_logits"][:, 0])
        gradients = {name: tape.gradient(loss, layers[name].kernel) for name in layers}
        for name in ("feat_embed", "cls_embed", "combined_embed", "att_w"):
            gradient = gradients[name]
            norm = 0.0 if gradient is None else np.linalg.norm(gradient)
            assert (norm > 0) == joint_gradient, name
            assert np.linalg.norm(tape.gradient(class_sum, layers[name].kernel)) > 0
        # The mask never trains the classification; the decoder it always trains.
        assert gradients["ip1"] is None and gradients["cls_score"] is None
        assert np.linalg.norm(gradients["seg_score"]) > 0
        # The features that the attention weighs are the encoder's: no path but through a and z.
        assert (gradients["conv1_1"] is not None) == joint_gradient


@pytest.mark.parametrize("name", ["baselinenet", "decouplednet"])
def test_attention_of_a_baseline_is_no_decoder_input(name):
    with pytest.raises(InputError, match=f"decoder_input=attention: {name}"):
        BUILDERS[name](THREE_BLOCKS.replace(decoder_input="attention"))


def test_network_survives_a_keras_file(tmp_path):
    for changes in ({}, {"joint_gradient": False, "gating": "concat"}):
        model = _build(THREE_BLOCKS.replace(**changes))
        path = os.path.join(tmp_path, "network.keras")
        model.save(path)
        reloaded = keras.models.load_model(path)
        inputs = _inputs(THREE_BLOCKS)
        for name, expected in model(inputs).items():
            np.testing.assert_array_equal(reloaded(inputs)[name], expected)


def test_mixed_precision_gives_float32_logits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_transfernet(THREE_BLOCKS)
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = model(_inputs(THREE_BLOCKS))
    assert outputs["mask_logits"].dtype == outputs["class_logits"].dtype == "float32"
    assert model.get_layer("encoder").get_layer("conv1_1").compute_dtype == "bfloat16"
    assert all(weight.dtype == "float32" for weight in model.weights)
    exact = build_transfernet(THREE_BLOCKS)
    exact.set_weights(model.get_weights())
    attention = np.asarray(tf.cast(outputs["attention"], "float32"))
    _assert_close(attention, np.asarray(exact(_inputs(THREE_BLOCKS))["attention"]), relative=0.05)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("jit_compile", [None, True])
def test_an_id_of_no_label_gives_nan_and_leaves_the_others_alone(name, jit_compile):
    """Nothing that looks like a mask comes out; images beside it are answered as without it."""
    config = THREE_BLOCKS.replace(image_size=32)
    keras.utils.set_random_seed(0)
    model = BUILDERS[name](config)
    inputs = _inputs(config, batch=4)
    expected = {key: value.numpy() for key, value in model(inputs).items()}
    strange = {**inputs, "label": np.array([inputs["label"][0], 0, 6, 255], np.int32)}
    call = model if jit_compile is None else tf.function(model, jit_compile=True)
    outputs = call({n: tf.constant(v) for n, v in strange.items()})
    for key, value in outputs.items():
        _assert_close(value[:1], expected[key][:1])
    assert np.isnan(outputs["mask_logits"][1:]).all()
    if name != "decouplednet":  # Unpooling leaves zeros in its map where no channel has its maximum.
        assert np.isnan(outputs["densified"][1:]).all()
