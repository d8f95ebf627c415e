"""Our network against numbers of the authors' own software, blob by blob (golden README)."""

from __future__ import annotations

import golden
import numpy as np
import pytest
import tensorflow as tf

from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers

FORWARD_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-5
FORWARD = golden.keys("forward")
ACCURACIES = [key for key in FORWARD if key.endswith("-accuracy")]
MASKS = [key for key in FORWARD if key.endswith("_mask")]
EXACT = [*MASKS, "cls-label-digit"]
SCALARS = [key for key in FORWARD if golden.arrays("forward")[key].ndim == 0]
BLOBS = [key for key in FORWARD if key not in {*ACCURACIES, *EXACT, *SCALARS}]
LOSSES = [key for key in SCALARS if key not in ACCURACIES]
BATCH = len(golden.arrays("inputs")["data"])
REDUCED = (
    [key for key in FORWARD if key not in ACCURACIES and golden.arrays("forward")[key].shape[:1] == (1,)]
    if BATCH > 1
    else []
)
GRADIENTS = [key for key in golden.keys("grads") if not key.startswith("blob:")]
ADAM = [key for key in golden.keys("adam") if key.startswith("step")]
STEPS = range(1, 1 + max(int(key[4 : key.index(":")]) for key in ADAM))
LEARNING_RATE = 5e-4
BLOB_GRADIENTS = [key for key in golden.keys("grads") if key.startswith("blob:")]


@pytest.fixture(scope="module")
def run() -> golden.Run:
    return golden.run()


@pytest.fixture(scope="module")
def kept_sample(run: golden.Run) -> int:
    """Finds the sample that the reduced blobs hold: the one that fits all of them best."""

    def misfit(sample: int) -> float:
        pairs = [(run.blobs[key][sample : sample + 1], golden.arrays("forward")[key]) for key in REDUCED]
        return max((golden.error(*pair) for pair in pairs), default=0.0)

    return min(range(BATCH), key=misfit)


def _pair(run: golden.Run, key: str, kept_sample: int) -> tuple[np.ndarray, np.ndarray]:
    got, want = run.blobs[key], golden.arrays("forward")[key]
    if key in REDUCED:
        got = got[kept_sample : kept_sample + 1]
    assert got.shape == want.shape
    return got, want


def test_the_golden_set_is_whole():
    """Guards the tests below against an empty list of ids."""
    assert len(BLOBS) > 20 and len(GRADIENTS) > 20 and BLOB_GRADIENTS and MASKS
    assert {"cls-loss", "seg-loss", "total_loss"} == set(LOSSES)
    assert len(ACCURACIES) == 2


def test_input(run: golden.Run):
    """RGB in 0 to 255 becomes the authors' BGR minus mean."""
    assert golden.error(run.blobs["data"], golden.arrays("inputs")["data"]) <= 1e-6


@pytest.mark.parametrize("key", BLOBS)
def test_blob(run: golden.Run, kept_sample: int, key: str):
    got, want = _pair(run, key, kept_sample)
    assert golden.error(got, want) <= FORWARD_TOLERANCE


@pytest.mark.parametrize("key", EXACT)
def test_exact_blob(run: golden.Run, kept_sample: int, key: str):
    np.testing.assert_array_equal(*_pair(run, key, kept_sample))


@pytest.mark.parametrize("key", LOSSES)
def test_loss(run: golden.Run, key: str):
    assert golden.error(run.blobs[key], golden.arrays("forward")[key]) <= FORWARD_TOLERANCE


@pytest.mark.parametrize("key", ACCURACIES)
def test_accuracy(run: golden.Run, key: str):
    want = golden.arrays("forward")[key].item()
    assert run.blobs[key] == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    ("output", "key"),
    [
        ("attention", "att"),
        ("densified", "filter_sum_map"),
        ("class_logits", "cls-score"),
        ("mask_logits", "seg-score"),
    ],
)
def test_output_of_the_whole_model(run: golden.Run, kept_sample: int, output: str, key: str):
    got = run.outputs[output]
    got = got[:, None] if got.ndim == 3 else golden.to_nchw(got)
    if key in REDUCED:
        got = got[kept_sample : kept_sample + 1]
    assert golden.error(got, golden.arrays("forward")[key]) <= FORWARD_TOLERANCE


def test_every_parameter_has_a_golden_gradient(run: golden.Run):
    assert sorted(run.gradients) == GRADIENTS


@pytest.mark.parametrize("key", GRADIENTS)
def test_parameter_gradient(run: golden.Run, key: str):
    want = golden.arrays("grads")[key]
    assert run.gradients[key].shape == want.shape
    assert golden.error(run.gradients[key], want) <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("key", BLOB_GRADIENTS)
def test_blob_gradient(run: golden.Run, key: str):
    want = golden.arrays("grads")[key]
    got = run.blob_gradients[key.removeprefix("blob:")].reshape(want.shape)
    assert golden.error(got, want) <= GRADIENT_TOLERANCE


@pytest.fixture(scope="module")
def updates() -> dict[str, np.ndarray]:
    """Takes the golden's updates, encoder frozen; gives what adam.npz holds."""
    model, config = golden.build()
    model.get_layer("encoder").trainable = False
    data = golden.batch(config)
    trained = model.trainable_variables
    optimizer = AdamWithMultipliers(official_multipliers(trained), learning_rate=LEARNING_RATE)
    values = {}
    for step in STEPS:
        with tf.GradientTape() as tape:
            outputs = model({"image": data["image"], "label": data["label"]})
            loss = golden.losses(outputs, data["label"], data["mask"])["total_loss"]
        values[f"loss_before_step{step}"] = loss.numpy()
        optimizer.apply(tape.gradient(loss, trained), trained)
        for key, variable in golden.parameters(model).items():
            values[f"step{step}:{key}"] = golden.to_caffe(key, variable.numpy(), config)
    return values


@pytest.mark.parametrize("step", STEPS)
def test_loss_before_update(updates: dict[str, np.ndarray], step: int):
    key = f"loss_before_step{step}"
    assert golden.error(updates[key], golden.arrays("adam")[key]) <= FORWARD_TOLERANCE


@pytest.mark.parametrize("key", ADAM)
def test_update(updates: dict[str, np.ndarray], key: str):
    """Holds the parameter to a thousandth of an Adam step, beside the rounding of its float32.

    Where the gradient is not zero but vanishes against its array's largest, Adam divides rounding
    by rounding, and only the length of the steps is known.
    """
    step, name = key.removeprefix("step").split(":")
    got, want = updates[key], golden.arrays("adam")[key]
    assert got.shape == want.shape
    if name.startswith("conv"):
        np.testing.assert_array_equal(got, want)
        return
    length = LEARNING_RATE * (2 if name.endswith("/1") else 1) * (10 if "cls-score" in name else 1)
    gradient = np.abs(golden.arrays("grads")[name])
    settled = (gradient == 0) | (gradient > 1e-4 * gradient.max())
    allowed = np.where(settled, 1e-3 * length, 2 * int(step) * length)
    allowed = allowed + 4 * np.spacing(np.abs(want))
    assert (np.abs(got.astype(np.float64) - want) <= allowed).all()


def _ties(name: str) -> dict[str, np.ndarray]:
    """Gives the arrays of one tie case in NHWC."""
    chosen = {k.split(":")[1]: v for k, v in golden.arrays("ties").items() if k.startswith(name)}
    return {key: value.transpose(0, 2, 3, 1) for key, value in chosen.items()}


def test_ties_in_pooling():
    ties = _ties("even:")
    x = tf.constant(ties["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        pooled, switches = MaxPooling2DWithSwitches()(x)
    np.testing.assert_array_equal(pooled, ties["pooled"])
    indices = golden.plane_indices(switches.numpy().transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(indices, ties["mask"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(tape.gradient(pooled, x, ties["d_pooled"]), ties["d_x"])


def test_ties_in_unpooling():
    ties = _ties("even:")
    _, switches = MaxPooling2DWithSwitches()(ties["x"])
    u = tf.constant(ties["u"])
    with tf.GradientTape() as tape:
        tape.watch(u)
        unpooled = MaxUnpooling2D()([u, switches])
    np.testing.assert_array_equal(unpooled, ties["unpooled"])
    np.testing.assert_array_equal(tape.gradient(unpooled, u, ties["d_unpooled"]), ties["d_u"])


def test_odd_sizes_are_refused():
    """Caffe's ceil mode would need a size that the network never has."""
    x = _ties("odd:")["x"]
    size = next(str(side) for side in x.shape[1:3] if side % 2)
    with pytest.raises(ValueError, match=size):
        MaxPooling2DWithSwitches()(x)
