"""Adam with multipliers against Adam written out in float64 NumPy."""

import keras
import numpy as np
import pytest

from tfseg.config import ModelConfig, preset
from tfseg.models import build_transfernet
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers

LEARNING_RATE = 5e-4


def numpy_adam(weight, gradients, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Caffe's Adam: the correction on the rate, epsilon outside of the root and uncorrected (SPEC 5)."""
    weight = np.asarray(weight, np.float64).copy()
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t, gradient in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        weight -= rate * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + epsilon)
    return weight


def _variables(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(0, 0.1, shape).astype(np.float32)) for shape in shapes]


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3])
def test_several_steps_equal_numpy(scale):
    """Gradients near epsilon tell where epsilon stands."""
    variables, multipliers = _variables([(3, 4), (4,), (2, 3), (3,)]), [1.0, 2.0, 10.0, 20.0]
    start = [variable.numpy() for variable in variables]
    optimizer = AdamWithMultipliers(multipliers, learning_rate=LEARNING_RATE)
    optimizer.build(variables)
    rng = np.random.default_rng(1)
    steps = [[scale * rng.standard_normal(v.shape).astype(np.float32) for v in variables] for _ in range(7)]
    for gradients in steps:
        optimizer.apply(gradients, variables)
    for i, variable in enumerate(variables):
        gradients = [np.float64(step[i]) for step in steps]
        expected = numpy_adam(start[i], gradients, multipliers[i] * LEARNING_RATE)
        moved = np.abs(expected - start[i]).max()
        np.testing.assert_allclose(variable.numpy(), expected, rtol=0, atol=1e-4 * moved + 1e-8)
        assert moved > 0


def test_float64_to_the_last_digits():
    variable = keras.Variable(np.random.default_rng(0).normal(0, 0.1, (5, 3)), dtype="float64")
    start, rng = variable.numpy(), np.random.default_rng(1)
    optimizer = AdamWithMultipliers([3.0], learning_rate=LEARNING_RATE)
    optimizer.build([variable])
    gradients = [rng.standard_normal((5, 3)) for _ in range(5)]
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
    rate = 3.0 * float(optimizer.learning_rate)
    np.testing.assert_allclose(variable.numpy(), numpy_adam(start, gradients, rate), rtol=1e-12)


def test_amsgrad_is_refused():
    with pytest.raises(ValueError, match="amsgrad"):
        AdamWithMultipliers([1.0], amsgrad=True)


def test_the_first_step_with_unit_gradients_is_the_rate_times_the_multiplier():
    """SPEC 15: bias steps are twice weight steps, the class score's ten times."""
    model = build_transfernet(preset("tiny").replace(image_size=32))
    variables = model.get_layer("attention").trainable_variables
    optimizer = AdamWithMultipliers(official_multipliers(variables), learning_rate=LEARNING_RATE)
    optimizer.build(variables)
    before = {variable.path: variable.numpy() for variable in variables}
    optimizer.apply([np.ones(variable.shape, np.float32) for variable in variables], variables)
    factors = {}
    for variable in variables:
        step = (before[variable.path] - variable.numpy()) / LEARNING_RATE
        np.testing.assert_allclose(step, step.mean(), atol=1e-3)
        layer, kind = variable.path.split("/")[-2:]
        factors[layer, kind] = step.mean()
    for (layer, kind), factor in factors.items():
        expected = (10 if layer == "cls_score" else 1) * (2 if kind == "bias" else 1)
        np.testing.assert_allclose(factor, expected, rtol=1e-3, err_msg=f"{layer}/{kind}")
    layers = {"feat_embed", "cls_embed", "combined_embed", "att_w", "ip1", "cls_score"}
    assert {layer for layer, _ in factors} == layers


def test_multipliers_of_the_decoder():
    decoder = build_transfernet(preset("tiny").replace(image_size=32)).get_layer("decoder")
    multipliers = official_multipliers(decoder.trainable_variables)
    assert multipliers == [1.0, 2.0] * (len(multipliers) // 2)


def test_multipliers_of_the_classifier_and_the_baselines_score_no_factor_ten():
    """Only the authors' `cls_score` has it; `score` of the classifier is another layer."""
    from tfseg.models import build_classifier

    config = ModelConfig(image_size=16, num_labels=3, encoder_blocks=((1, 4), (1, 4)), classifier_units=4)
    assert set(official_multipliers(build_classifier(config).trainable_variables)) == {1.0, 2.0}


def test_epsilon_is_caffes():
    assert AdamWithMultipliers([1.0]).epsilon == 1e-8
    assert AdamWithMultipliers([1.0], epsilon=1e-3).epsilon == 1e-3


def test_one_multiplier_a_variable():
    optimizer = AdamWithMultipliers([1.0, 2.0])
    with pytest.raises(ValueError, match="2 multipliers for 3 variables"):
        optimizer.build(_variables([(1,), (1,), (1,)]))


def test_configuration_survives():
    optimizer = AdamWithMultipliers([1.0, 2.0], learning_rate=0.25)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is AdamWithMultipliers
    assert again.multipliers == [1.0, 2.0] and float(again.learning_rate) == 0.25
