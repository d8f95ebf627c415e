"""An update against losses and gradients written out with TensorFlow's own functions on one whole batch."""

import keras
import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.training.step import build_train_step

STAGES = ("attention", "joint", "encoder")


def _tf_loss(built, batch, stage, seg_weight=1.0):
    """Equations (6) and (9), or the multi-label loss, of all pairs at once as one balanced batch."""
    joined = {name: tf.concat([batch[d][name] for d in batch], axis=0) for name in next(iter(batch.values()))}
    if stage in ("encoder", "classifier"):
        logits = built({"image": joined["image"]}, training=True)["class_logits"]
        known = tf.concat(
            [
                tf.ones_like(batch[d]["present"])
                * (1.0 if d == "source" else tf.reduce_max(tf.one_hot([0, 1], small.CONFIG.num_labels), 0))
                for d in batch
            ],
            axis=0,
        )
        losses = tf.nn.sigmoid_cross_entropy_with_logits(joined["present"], logits)
        return tf.reduce_mean(tf.reduce_sum(known * losses, axis=1))
    outputs = built({"image": joined["image"], "label": joined["label"]}, training=True)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    loss = tf.reduce_mean(cross_entropy(joined["label"] - 1, outputs["class_logits"]))
    if stage == "joint":
        valid = tf.where(joined["mask"] != 255)
        truth = tf.cast(tf.gather_nd(joined["mask"], valid), tf.int32)
        logits = tf.gather_nd(outputs["mask_logits"], valid)
        loss += seg_weight * tf.reduce_mean(cross_entropy(truth, logits))
    return loss


def _tf_gradients(built, variables, loss_of):
    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        loss = loss_of(built)
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(loss, values, unconnected_gradients=zero)
    return float(loss), {v.path: g.numpy() for v, g in zip(variables, gradients, strict=True)}


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_add_up_to_one_balanced_batch(stage):
    """Strict alternation of the domains and one balanced batch coincide, however the batch is cut."""
    built = small.network(stage)
    wrapped, batch = small.stage_of(built, stage, seg_weight=0.7), small.batch_of(16)
    expected_loss, expected = _tf_gradients(
        built, wrapped.trained, lambda model: _tf_loss(model, batch, stage, 0.7)
    )
    assert all(np.abs(gradient).max() > 0 for gradient in expected.values())
    for micro_batch_size in (0, 4, 1):
        losses, gradients = small.gradients_of(wrapped, batch, micro_batch_size)
        assert losses["loss"] == pytest.approx(expected_loss, rel=1e-5)
        small.assert_close(gradients, expected, relative=1e-4)


def test_micro_batches_alternate_target_first():
    seen = []
    built = small.network("attention")
    wrapped = small.stage_of(built, "attention")
    inner = wrapped.losses

    def recording(examples, domain, norm):
        seen.append((domain, examples["label"].shape[0]))
        return inner(examples, domain, norm)

    wrapped.losses = recording
    small.gradients_of(wrapped, small.batch_of(16), 2)
    # Traced twice: the first pair of micro-batches, and the loop over the others.
    assert seen[:2] == [("target", 2), ("source", 2)]
    assert all(pair == (("target", 2), ("source", 2)) for pair in zip(seen[::2], seen[1::2], strict=True))


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("model", ["transfernet", "decouplednet"])
def test_gradients_to_the_last_digits(float64, model):
    """What is computed once, in another order or not at all leaves loss and gradients as they are."""
    built = small.network("joint", model)
    wrapped, batch = small.stage_of(built, "joint", seg_weight=0.7), small.batch_of(8)
    values = [variable.value for variable in wrapped.trained]
    assert {value.dtype for value in values} == {tf.float64}
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    source, target = ({name: batch[d][name] for name in ("image", "label")} for d in small.DOMAINS)
    with tf.GradientTape() as tape:
        seen, unseen = built(source, training=True), built(target, training=False)
        labels = tf.concat([source["label"], target["label"]], axis=0) - 1
        class_logits = tf.concat([seen["class_logits"], unseen["class_logits"]], axis=0)
        valid = tf.where(batch["source"]["mask"] != 255)
        truth = tf.cast(tf.gather_nd(batch["source"]["mask"], valid), tf.int32)
        loss = tf.reduce_mean(cross_entropy(labels, class_logits))
        loss += 0.7 * tf.reduce_mean(cross_entropy(truth, tf.gather_nd(seen["mask_logits"], valid)))
    expected = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    expected = {v.path: g.numpy() for v, g in zip(wrapped.trained, expected, strict=True)}
    # Batch norm normalises over a micro-batch: DecoupledNet's gradients depend on the cut.
    for micro_batch_size in (0, 1, 2) if model == "transfernet" else (0,):
        _, gradients = small.gradients_of(wrapped, batch, micro_batch_size)
        small.assert_close(gradients, expected, relative=1e-12)


def _shapes_in_functions(train_step, batch):
    """Shapes of what the operations of a traced update give: of the update itself, and of its functions."""
    definition = train_step.get_concrete_function(batch).graph.as_graph_def(add_shapes=True)

    def shapes(nodes):
        listed = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
        return [tuple(dim.size for dim in shape.dim) for shape in listed]

    functions = [node for f in definition.library.function for node in f.node_def]
    return shapes(definition.node), shapes(functions)


def test_the_largest_gradient_is_formed_once_and_not_in_a_micro_batch():
    """Memory of an update does not grow with a sum of feat_embed's gradient for each micro-batch."""
    built = small.network("joint")
    kernel = built.get_layer("attention").get_layer("feat_embed").kernel
    wrapped, batch = small.stage_of(built), small.batch_of(16)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(wrapped.trained)
    step = build_train_step(wrapped, optimizer, small.DOMAINS, 16, 2)
    once, in_functions = _shapes_in_functions(step, batch)
    assert tuple(kernel.shape) not in in_functions  # The loop over micro-batches, and all that it calls.
    assert once.count((8, 16, 16)) or in_functions  # Shapes are told.
    definition = step.get_concrete_function(batch).graph.as_graph_def(add_shapes=True)
    products = [
        node
        for node in definition.node
        if node.op == "MatMul"
        and [d.size for d in node.attr["_output_shapes"].list.shape[0].dim] == list(kernel.shape)
    ]
    assert len(products) == 1


def test_of_the_frozen_encoder_features_and_switches_are_kept():
    built, batch = small.network("joint"), small.batch_of(8)
    wrapped = small.stage_of(built)
    features = {"features": "float32"}
    switches = {f"switches{i}": "uint8" for i in (1, 2)}
    for domain, expected in (("source", {**features, **switches}), ("target", features)):
        encoded = wrapped.encode(batch[domain], domain)
        assert {name: keras.backend.standardize_dtype(t.dtype) for name, t in encoded.items()} == expected
        assert wrapped.encoded_dtypes(domain) == expected
        for name, value in built.get_layer("encoder")(batch[domain]["image"]).items():
            if name in encoded:
                np.testing.assert_array_equal(encoded[name], value)


@pytest.mark.parametrize("stage", ["joint", "encoder"])
def test_one_domain_alone(stage):
    built = small.network(stage)
    wrapped, batch = small.stage_of(built, stage), small.batch_of(8, domains=("source",))
    loss, expected = _tf_gradients(built, wrapped.trained, lambda model: _tf_loss(model, batch, stage))
    losses, gradients = small.gradients_of(wrapped, batch, 2)
    assert losses["loss"] == pytest.approx(loss, rel=1e-5)
    small.assert_close(gradients, expected, relative=1e-4)


def test_compiled_by_xla():
    built = small.network()
    wrapped, batch = small.stage_of(built), small.batch_of(8)
    losses, expected = small.gradients_of(wrapped, batch)
    compiled_losses, gradients = small.gradients_of(wrapped, batch, 2, jit_compile=True)
    assert compiled_losses == pytest.approx(losses, rel=1e-4)
    small.assert_close(gradients, expected, relative=1e-3)


def _numpy_cross_entropy(logits, truth):
    logits = np.float64(logits)
    top = logits.max(axis=-1)
    chosen = np.take_along_axis(logits, truth[..., None].astype(int), axis=-1)[..., 0]
    return top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)) - chosen


def _numpy_losses(built, batch, cut, seg_weight):
    """L_cls over all pairs, L_seg averaged over groups of `cut` source pairs, and what is shown."""
    cls, right, groups = [], [], []
    for examples in batch.values():
        outputs = built({"image": examples["image"], "label": examples["label"]})
        logits, label = outputs["class_logits"].numpy(), examples["label"].numpy()
        cls.append(_numpy_cross_entropy(logits, label - 1))
        right.append(logits.argmax(axis=1) == label - 1)
        mask, mask_logits = examples["mask"].numpy(), outputs["mask_logits"].numpy()
        for i in range(0, len(mask), cut):
            valid = mask[i : i + cut] != 255
            if valid.any():
                losses = _numpy_cross_entropy(mask_logits[i : i + cut][valid], mask[i : i + cut][valid])
                groups.append(losses.mean())
    cls_loss, seg_loss = np.concatenate(cls).mean(), np.mean(groups)
    return {
        "loss": cls_loss + seg_weight * seg_loss,
        "cls_loss": cls_loss,
        "seg_loss": seg_loss,
        "cls_accuracy": np.concatenate(right).mean(),
    }


@pytest.mark.parametrize("seg_weight", [1.0, 0.25])
def test_joint_loss_is_equation_9(seg_weight):
    built, batch = small.network(), small.batch_of(16)
    expected = _numpy_losses(built, batch, cut=8, seg_weight=seg_weight)
    for micro_batch_size in (0, 2):
        losses, _ = small.gradients_of(small.stage_of(built, seg_weight=seg_weight), batch, micro_batch_size)
        assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("micro_batch_size", [1, 4, 8])
def test_mean_over_micro_batches(micro_batch_size):
    """As Caffe takes it: each micro-batch by its own valid pixels, then the mean of those means."""
    built, batch = small.network(), small.batch_of(16)
    wrapped = small.stage_of(built, mean_per_micro_batch=True)
    losses, _ = small.gradients_of(wrapped, batch, micro_batch_size)
    expected = _numpy_losses(built, batch, cut=micro_batch_size, seg_weight=1.0)
    assert losses == pytest.approx(expected, rel=1e-5)
    globally = _numpy_losses(built, batch, cut=8, seg_weight=1.0)
    if micro_batch_size < 8:
        assert abs(expected["seg_loss"] - globally["seg_loss"]) > 1e-4  # It does make a difference.


def test_the_authors_update_of_64_pairs():
    """SPEC 5: 16 mini-batches of 4, target and source by turns, loss_weight 2, gradients divided by 16."""
    built, batch = small.network(), small.batch_of(64)
    wrapped = small.stage_of(built, mean_per_micro_batch=True)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits

    def caffe_loss(model):
        total = 0.0
        for iteration in range(16):
            domain, start = ("target", "source")[iteration % 2], 4 * (iteration // 2)
            part = {name: value[start : start + 4] for name, value in batch[domain].items()}
            outputs = model({"image": part["image"], "label": part["label"]})
            total += tf.reduce_mean(cross_entropy(part["label"] - 1, outputs["class_logits"]))
            valid = part["mask"] != 255
            truth = tf.cast(tf.where(valid, part["mask"], 0), tf.int32)
            pixels = tf.where(valid, cross_entropy(truth, outputs["mask_logits"]), 0.0)
            count = tf.reduce_sum(tf.cast(valid, tf.float32))
            total += 2.0 * tf.reduce_sum(pixels) / tf.maximum(count, 1.0)
        return total / 16.0

    expected_loss, expected = _tf_gradients(built, wrapped.trained, caffe_loss)
    losses, gradients = small.gradients_of(wrapped, batch, 4)
    assert losses["loss"] == pytest.approx(expected_loss, rel=1e-5)
    small.assert_close(gradients, expected, relative=1e-4)


def _decoder_only(gradients):
    decoder = {path: g for path, g in gradients.items() if "deconv" in path or "seg_score" in path}
    assert len(decoder) > 6 and len(decoder) < len(gradients)
    return decoder


def test_target_pairs_give_the_decoder_no_gradient():
    built, batch = small.network(), small.batch_of(8, domains=("target",))
    # Even if masks were there: without --target_masks they are not looked at.
    batch["target"]["mask"] = tf.ones_like(batch["target"]["mask"])
    losses, gradients = small.gradients_of(small.stage_of(built), batch)
    assert all((g == 0).all() for g in _decoder_only(gradients).values())
    assert np.isfinite(losses["loss"]) and "seg_loss" not in losses
    expected_loss, expected = _tf_gradients(
        built, small.stage_of(built).trained, lambda model: _tf_loss(model, batch, "attention")
    )
    assert losses["loss"] == pytest.approx(expected_loss, rel=1e-5)
    small.assert_close(gradients, expected, relative=1e-4)


def test_target_masks_change_nothing_unless_asked_for():
    built, batch = small.network(), small.batch_of(8)
    hidden = small.gradients_of(small.stage_of(built), batch)
    batch["target"]["mask"] = tf.zeros_like(batch["target"]["mask"])
    shown = small.gradients_of(small.stage_of(built), batch)
    assert shown[0] == hidden[0]
    small.assert_close(shown[1], hidden[1], relative=0.0)

    wrapped = small.stage_of(built, decode_target=True)
    loss, expected = _tf_gradients(built, wrapped.trained, lambda model: _tf_loss(model, batch, "joint"))
    for micro_batch_size in (0, 1):
        losses, gradients = small.gradients_of(wrapped, batch, micro_batch_size)
        assert losses["loss"] == pytest.approx(loss, rel=1e-5)
        small.assert_close(gradients, expected, relative=1e-4)
    assert losses["loss"] != pytest.approx(hidden[0]["loss"], rel=1e-3)


@pytest.mark.parametrize("mean_per_micro_batch", [False, True])
def test_no_valid_pixel_at_all(mean_per_micro_batch):
    built, batch = small.network(), small.batch_of(8, valid=0.0)
    wrapped = small.stage_of(built, decode_target=True, mean_per_micro_batch=mean_per_micro_batch)
    losses, gradients = small.gradients_of(wrapped, batch, 2)
    assert losses["seg_loss"] == 0.0 and losses["loss"] == losses["cls_loss"] > 0
    assert all(np.isfinite(g).all() for g in gradients.values())
    assert all((g == 0).all() for g in _decoder_only(gradients).values())


@pytest.mark.parametrize("stage", ["attention", "joint"])
def test_the_encoder_stays_bit_equal(stage):
    built = small.network(stage)
    before = [weight.numpy() for weight in built.weights]
    wrapped = small.stage_of(built, stage)
    _, train_step = small.trainer(wrapped, 8, 2)
    for seed in range(3):
        train_step(small.batch_of(8, seed))
    trained = {variable.path for variable in wrapped.trained}
    frozen = {weight.path for weight in built.get_layer("encoder").weights}
    if stage == "attention":
        frozen |= {weight.path for weight in built.get_layer("decoder").weights}
    assert trained | frozen == {weight.path for weight in built.weights} and not trained & frozen
    for weight, old in zip(built.weights, before, strict=True):
        assert (weight.numpy() == old).all() == (weight.path in frozen), weight.path


def _operations(train_step, batch):
    """Counts the kinds of operations of a traced update, all nested functions included."""
    definition = train_step.get_concrete_function(batch).graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    counts = {}
    for node in nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    return counts


def _traced(stage, domains=small.DOMAINS, **options):
    wrapped = small.stage_of(small.network(stage), stage, **options)
    _, train_step = small.trainer(wrapped, 8, domains=domains)
    return _operations(train_step, small.batch_of(8, domains=domains))


ENCODER_CONVOLUTIONS = sum(depth for depth, _ in small.CONFIG.encoder_blocks)
DECONVOLUTIONS = 1 + sum(depth for depth, _ in small.CONFIG.encoder_blocks[:-1])


def test_no_gradient_is_computed_through_the_frozen_encoder():
    """TensorFlow's derivatives of a convolution have operations of their own, which give them away."""
    attention = _traced("attention")
    assert attention["Conv2D"] == 2 * ENCODER_CONVOLUTIONS  # Forward, once a domain.
    assert "Conv2DBackpropFilter" not in attention and "Conv2DBackpropInput" not in attention
    # A transposed convolution *is* the derivative to the input, and its own derivative is a convolution.
    joint = _traced("joint")
    assert joint["Conv2DBackpropFilter"] == DECONVOLUTIONS + 1
    assert joint["Conv2DBackpropInput"] == DECONVOLUTIONS + 1
    assert joint["Conv2D"] == 2 * ENCODER_CONVOLUTIONS + 1 + DECONVOLUTIONS
    # The test can see such a gradient: stage `encoder` has one.
    encoder = _traced("encoder")
    assert encoder["Conv2DBackpropFilter"] >= 2 * ENCODER_CONVOLUTIONS


def test_target_pairs_are_not_decoded():
    assert "Conv2DBackpropInput" not in _traced("joint", domains=("target",))
    both = _traced("joint", decode_target=True)
    assert both["Conv2DBackpropInput"] == 2 * (DECONVOLUTIONS + 1)


def test_shown_losses_are_those_before_the_update():
    built, batch = small.network(), small.batch_of(8)
    wrapped = small.stage_of(built)
    _, train_step = small.trainer(wrapped, 8)
    expected = _numpy_losses(built, batch, cut=4, seg_weight=1.0)["loss"]
    losses = [float(train_step(batch)["loss"]) for _ in range(15)]
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < 0.95 * losses[0]


def test_labels_of_the_source_are_unknown_in_the_target():
    built, batch = small.network("encoder"), small.batch_of(8)
    reference = small.gradients_of(small.stage_of(built, "encoder"), batch)
    for domain, changes in (("target", False), ("source", True)):
        present = batch[domain]["present"].numpy()
        present[:, 2:] = 1 - present[:, 2:]
        changed = {**batch, domain: {**batch[domain], "present": tf.constant(present)}}
        losses, _ = small.gradients_of(small.stage_of(built, "encoder"), changed)
        assert (losses["loss"] != reference[0]["loss"]) == changes


def test_target_labels_that_source_images_may_show_are_not_taught_as_absent():
    """Records of `--exclude_target_images=false`: a source record lists no target label, shown or not."""
    built, batch = small.network("encoder"), small.batch_of(8, domains=("source",))
    logits = built({"image": batch["source"]["image"]}, training=True)["class_logits"]
    losses = tf.nn.sigmoid_cross_entropy_with_logits(batch["source"]["present"], logits).numpy()
    for known in ((1, 2, 3, 4, 5), (3, 4, 5)):
        wrapped = small.stage_of(built, "encoder", known_labels={"source": known})
        shown, gradients = small.gradients_of(wrapped, batch)
        columns = np.array(known) - 1
        assert shown["loss"] == pytest.approx(losses[:, columns].sum(axis=1).mean(), rel=1e-5)
        assert (gradients["score/bias"][:2] != 0).any() == (1 in known)


@pytest.mark.parametrize("batch_size, micro", [(6, 2), (7, 0), (8, 3), (1, 0), (8, 8)])
def test_batches_that_cannot_be_cut_are_refused(batch_size, micro):
    wrapped = small.stage_of(small.network("attention"), "attention")
    with pytest.raises(InputError, match=f"batch_size={batch_size}, micro_batch_size={micro}"):
        build_train_step(wrapped, None, small.DOMAINS, batch_size, micro)
