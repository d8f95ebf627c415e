"""BaselineNet and DecoupledNet: what they share with TransferNet, and what they add, against NumPy."""

import keras
import numpy as np
import numpy_network
import pytest
import tensorflow as tf
from small_networks import THREE_BLOCKS

from tfseg.config import preset
from tfseg.data.labels import Label, LabelMap
from tfseg.losses import label_cross_entropy, mask_cross_entropy
from tfseg.model_dir import ModelDir, load_model, save_model_dir
from tfseg.models import BUILDERS, build_classifier
from tfseg.models.classifier import build_classifier_head
from tfseg.models.decouplednet import ScoreGradient
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.stages import SegmentationStage
from tfseg.training.step import build_train_step

SMALL = THREE_BLOCKS.replace(image_size=32, classifier_units=6, classifier_dropout=0.0)
BASELINES = ("baselinenet", "decouplednet")


def _build(name, config=SMALL, seed=0):
    keras.utils.set_random_seed(seed)
    return BUILDERS[name](config)


def _inputs(config=SMALL, batch=3, seed=1):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (batch, config.image_size, config.image_size, 3))
    label = rng.integers(1, config.num_labels + 1, batch)
    return {"image": image.astype(np.float32), "label": label.astype(np.int32)}


def _batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    share = size // 2
    batch = {}
    for domain in ("source", "target"):
        mask = rng.integers(0, 2, (share, 32, 32)) if domain == "source" else np.full((share, 32, 32), 255)
        inputs = _inputs(batch=share, seed=seed + len(domain) * 7 + (domain == "target"))
        batch[domain] = {name: tf.constant(value) for name, value in inputs.items()}
        batch[domain]["mask"] = tf.constant(mask, tf.uint8)
    return batch


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("config", [SMALL, preset("tiny")], ids=["small", "tiny"])
def test_names_shapes_and_dtypes(name, config):
    model = _build(name, config)
    outputs = model(_inputs(config, batch=2))
    # BaselineNet attends on its score map, DecoupledNet on pool5.
    side = config.score_map_size if name == "baselinenet" else config.map_size // 2
    size = config.image_size
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "attention": (2, side, side),
        "densified": (2, config.map_size, config.map_size),
        "class_logits": (2, config.num_labels),
        "mask_logits": (2, size, size, 2),
    }
    assert all(np.isfinite(value).all() and value.dtype == "float32" for value in outputs.values())
    assert [layer.name for layer in model.layers if isinstance(layer, keras.Model)] == [
        "encoder",
        "attention",
        "decoder",
    ]


def _shapes(model):
    return {weight.path: tuple(weight.shape) for weight in model.weights}


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("config", [SMALL, preset("tiny")], ids=["small", "tiny"])
def test_encoder_and_decoder_are_transfernets(name, config):
    theirs, ours = _build("transfernet", config), _build(name, config)
    for part in ("encoder", "decoder"):
        assert ours.get_layer(part).count_params() == theirs.get_layer(part).count_params()
        assert _shapes(ours.get_layer(part)) == _shapes(theirs.get_layer(part))
        ours.get_layer(part).set_weights(theirs.get_layer(part).get_weights())
    inputs = _inputs(config, batch=2)
    encoded = theirs.get_layer("encoder")(inputs["image"])
    for key, value in ours.get_layer("encoder")(inputs["image"]).items():
        np.testing.assert_array_equal(value, encoded[key])
    switches = {key: value for key, value in encoded.items() if key != "features"}
    densified = ours(inputs)["densified"]
    np.testing.assert_allclose(
        ours(inputs)["mask_logits"],
        theirs.get_layer("decoder")({"densified": densified, **switches}),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_classification_head_is_the_classifiers():
    """So that stage `encoder` can start it (SPEC 9: fine-tune the classification network)."""
    head = _shapes(build_classifier(SMALL).get_layer("classifier_head"))
    for name in BASELINES:
        assert _shapes(_build(name).get_layer("attention").get_layer("classifier_head")) == head


def _convolution(x, kernel, bias):
    """Without padding: every output is the sum over a window of the input."""
    side = kernel.shape[0]
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    result = np.zeros((len(x), height, width, kernel.shape[3])) + bias
    for dy in range(side):
        for dx in range(side):
            result += x[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
    return result


def _transposed_convolution(gradient, kernel):
    """What flows back through `_convolution`: every output stamps the kernel onto its window."""
    side = kernel.shape[0]
    height, width = gradient.shape[1:3]
    result = np.zeros((len(gradient), height + side - 1, width + side - 1, kernel.shape[2]))
    for dy in range(side):
        for dx in range(side):
            result[:, dy : dy + height, dx : dx + width] += gradient @ kernel[dy, dx].T
    return result


def _float64_weights(model):
    return {
        layer.name: [weight.astype(np.float64) for weight in layer.get_weights()]
        for layer in model.layers
        if layer.weights and not isinstance(layer, keras.Model)
    }


def _numpy_head(weights, pooled):
    """fc6, fc7 and score: the score maps, and the layers between."""
    fc6 = numpy_network.relu(_convolution(pooled, *weights["fc6"]))
    fc7 = numpy_network.relu(_convolution(fc6, *weights["fc7"]))
    return _convolution(fc7, *weights["score"]), fc6, fc7


def _numpy_score_gradient(weights, pooled, label):
    """Backward by hand from the highest score, the way the authors' copied transposed weights do it."""
    scores, fc6, fc7 = _numpy_head(weights, pooled)
    gradient = np.zeros(scores.shape)
    for image, identity in enumerate(label):
        place = np.unravel_index(scores[image, :, :, identity - 1].argmax(), scores.shape[1:3])
        gradient[image, *place, identity - 1] = 1.0
    gradient = _transposed_convolution(gradient, weights["score"][0]) * (fc7 > 0)
    gradient = _transposed_convolution(gradient, weights["fc7"][0]) * (fc6 > 0)
    return _transposed_convolution(gradient, weights["fc6"][0])


BIG_HEAD = SMALL.replace(image_size=64)  # pool5 8x8, fc6 5x5, score maps 4x4.


def _head_and_input(config, seed=0, dtype="float32"):
    """A classification head with biases, in a precision of choice, and a positive input."""
    keras.utils.set_random_seed(seed)
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        head = build_classifier_head(config)
        layer = ScoreGradient(head)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(seed)
    for part in head.layers:
        if part.weights:
            kernel, bias = part.get_weights()
            part.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    side = config.map_size // 2
    pooled = np.maximum(rng.normal(0.3, 1, (4, side, side, config.feature_channels)), 0)
    return head, layer, pooled.astype(dtype), np.array([1, 3, 5, 3])


@pytest.mark.parametrize("config", [SMALL, BIG_HEAD], ids=["1x1", "5x5"])
def test_score_gradient_equals_backward_by_hand(config):
    head, layer, pooled, label = _head_and_input(config)
    one_hot = np.eye(config.num_labels, dtype=np.float32)[label - 1]
    expected = _numpy_score_gradient(_float64_weights(head), pooled.astype(np.float64), label)
    assert np.abs(expected).max() > 0
    for gradient in (
        layer([pooled, one_hot]),
        tf.function(lambda: layer([pooled, one_hot]))(),
        tf.function(lambda: layer([pooled, one_hot]), jit_compile=True)(),
    ):
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_score_gradient_against_finite_differences():
    """In float64, where a difference of scores has digits enough."""
    head, layer, pooled, label = _head_and_input(BIG_HEAD, dtype="float64")
    one_hot = np.eye(BIG_HEAD.num_labels)[label - 1]
    gradient = layer([pooled, one_hot]).numpy()
    assert gradient.dtype == np.float64

    def score(x):
        return np.einsum("bl,bl->b", head(x).numpy().max(axis=(1, 2)), one_hot)

    rng = np.random.default_rng(3)
    for _ in range(40):
        place = tuple(rng.integers(0, size) for size in pooled.shape)
        moved = [pooled.copy(), pooled.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        difference = (score(moved[0]) - score(moved[1]))[place[0]] / 2e-6
        assert gradient[place] == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_score_gradient_runs_the_head_without_dropout():
    head, layer, pooled, label = _head_and_input(SMALL.replace(classifier_dropout=0.9))
    one_hot = np.eye(5, dtype=np.float32)[label - 1]
    first = layer([pooled, one_hot])
    np.testing.assert_array_equal(first, layer([pooled, one_hot]))
    expected = _numpy_score_gradient(_float64_weights(head), pooled.astype(np.float64), label)
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_class_logits_are_the_highest_scores_and_attention_their_softmax():
    for name in BASELINES:
        model, inputs = _build(name), _inputs()
        attention = model.get_layer("attention")
        head = attention.get_layer("classifier_head")
        features = 0.01 * model.get_layer("encoder")(inputs["image"])["features"].numpy().astype(np.float64)
        pooled = numpy_network.windows(features).max(axis=0)
        scores, _, _ = _numpy_head(_float64_weights(head), pooled)
        outputs = model(inputs)
        np.testing.assert_allclose(outputs["class_logits"], scores.max(axis=(1, 2)), rtol=1e-4, atol=1e-5)
        label = inputs["label"]
        if name == "baselinenet":
            selected = scores[np.arange(3), :, :, label - 1]
            powers = np.exp(selected - selected.max(axis=(1, 2), keepdims=True))
            expected = powers / powers.sum(axis=(1, 2), keepdims=True)
            kernel, bias = attention.get_layer("score_to_map").get_weights()
            densified = (selected.reshape(3, -1) @ kernel + bias).reshape(outputs["densified"].shape)
            np.testing.assert_allclose(outputs["densified"], densified, rtol=1e-4, atol=1e-5)
        else:
            gradient = _numpy_score_gradient(_float64_weights(head), pooled, label)
            saliency = np.maximum((pooled * gradient).sum(axis=-1), 0)
            expected = saliency / (saliency.sum(axis=(1, 2), keepdims=True) + 1e-12)
        np.testing.assert_allclose(outputs["attention"], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_masks_do_not_train_the_classification_network(name):
    """SPEC 9: the decoder learns on the source, the classification network by labels."""
    model, inputs = _build(name), _inputs()
    mask = np.random.default_rng(0).integers(0, 2, (3, 32, 32)).astype(np.uint8)
    attention = model.get_layer("attention")
    head = attention.get_layer("classifier_head").trainable_variables
    own = [v for v in attention.trainable_variables if v.path not in {h.path for h in head}]
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(inputs, training=True)
        seg_loss, _ = mask_cross_entropy(mask, outputs["mask_logits"])
        cls_loss = tf.reduce_sum(label_cross_entropy(inputs["label"], outputs["class_logits"]))

    def norms(loss, variables):
        gradients = [tape.gradient(loss, variable.value) for variable in variables]
        return [0.0 if g is None else float(tf.norm(g)) for g in gradients]

    assert head and own
    assert max(norms(seg_loss, head)) == 0.0 and min(norms(cls_loss, head)) > 0.0
    assert max(norms(seg_loss, own)) > 0.0 and max(norms(cls_loss, own)) == 0.0
    assert min(norms(seg_loss, model.get_layer("decoder").trainable_variables)) > 0.0


@pytest.mark.parametrize("name", list(BUILDERS))
@pytest.mark.parametrize("stage", ["attention", "joint"])
def test_each_model_takes_updates(name, stage):
    model = _build(name)
    wrapped = SegmentationStage(model, joint=stage == "joint")
    optimizer = AdamWithMultipliers(official_multipliers(wrapped.trained), learning_rate=1e-3)
    optimizer.build(wrapped.trained)
    train_step = build_train_step(wrapped, optimizer, ("source", "target"), 8, 2)
    before = {weight.path: weight.numpy() for weight in model.weights}
    losses = [{key: v.numpy() for key, v in train_step(_batch()).items()} for _ in range(8)]
    assert all(np.isfinite(value).all() for entry in losses for value in entry.values())
    assert losses[-1]["loss"] < losses[0]["loss"]
    changed = {weight.path for weight in model.weights if (weight.numpy() != before[weight.path]).any()}
    assert not changed & {weight.path for weight in model.get_layer("encoder").weights}
    decoder = {weight.path for weight in model.get_layer("decoder").weights}
    assert (decoder <= changed) if stage == "joint" else not decoder & changed
    # Batch norm learns its statistics from what is decoded.
    statistics = {weight.path for weight in model.weights if "moving" in weight.path}
    assert (statistics <= changed) if stage == "joint" else not statistics & changed
    assert bool(statistics) == (name == "decouplednet")


@pytest.mark.parametrize("micro_batch_size", [0, 2])
def test_pairs_that_are_not_decoded_leave_the_batch_norm_alone(micro_batch_size):
    """A batch of both domains leaves DecoupledNet's statistics as its source half alone does."""
    statistics = []
    for domains in (("source", "target"), ("source",), ("target",)):
        model = _build("decouplednet")
        stage = SegmentationStage(model, joint=True)
        optimizer = keras.optimizers.SGD(0.0)
        optimizer.build(stage.trained)
        batch = {domain: _batch()[domain] for domain in domains}
        build_train_step(stage, optimizer, domains, 4 * len(domains), micro_batch_size)(batch)
        statistics.append({w.path: w.numpy() for w in model.weights if "moving" in w.path})
    both, source, target = statistics
    assert len(both) == 10
    for path, value in both.items():
        np.testing.assert_array_equal(value, source[path])
        assert (value != target[path]).any()  # The target's are those at the start.
        assert (target[path] == ("variance" in path)).all()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_checkpoints_keep_each_model(name, tmp_path):
    model = _build(name)
    label_map = LabelMap("five", tuple(Label(i, f"l{i}", "source") for i in range(1, 6)))
    save_model_dir(ModelDir(tmp_path, name, SMALL, label_map), model)
    loaded = load_model(tmp_path)
    assert loaded.name == name
    for key, expected in model(_inputs()).items():
        np.testing.assert_array_equal(loaded(_inputs())[key], expected)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_keras_file_keeps_each_model(name, tmp_path):
    model = _build(name)
    model.save(tmp_path / "network.keras")
    reloaded = keras.models.load_model(tmp_path / "network.keras")
    assert _shapes(reloaded) == _shapes(model)
    for key, expected in model(_inputs()).items():
        np.testing.assert_array_equal(reloaded(_inputs())[key], expected)


def test_a_reloaded_decouplednet_still_shares_its_head(tmp_path):
    """The gradient is that of the head which names the label, also after the head has learnt."""
    _build("decouplednet").save(tmp_path / "network.keras")
    attention = keras.models.load_model(tmp_path / "network.keras").get_layer("attention")
    assert attention.get_layer("score_gradient").head is attention.get_layer("classifier_head")
