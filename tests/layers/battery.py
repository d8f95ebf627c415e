"""One battery for every layer: numbers, compilation, shapes, dtypes, saving, config, gradients.

A test module lists its `LayerCase`s and runs each through each of `CHECKS`:

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_battery(case, check):
        check(case)
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Policy, its compute dtype, and the relative error that one rounding to it allows.
POLICIES = (
    ("float32", "float32", 2.0**-23),
    ("bfloat16", "bfloat16", 2.0**-8),
    ("float16", "float16", 2.0**-11),
    ("mixed_bfloat16", "bfloat16", 2.0**-8),
    ("mixed_float16", "float16", 2.0**-11),
)


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer, what it is given and what must come out.

    Attributes:
        layer: The layer class.
        arguments: Its constructor arguments.
        inputs: One array for each input; float64 where the layer takes floats.
        reference: From the inputs to the output, or the tuple of outputs.
        exact: Whether outputs are selections of inputs, equal to the last bit in every dtype.
        dynamic_axes: Axes beside the batch that may be unknown when the layer is traced.
        slack: Roundings that the largest output may be off by.
    """

    layer: type[keras.layers.Layer]
    arguments: dict[str, Any]
    inputs: tuple[np.ndarray, ...]
    reference: Callable[..., Any]
    exact: bool = False
    dynamic_axes: tuple[int, ...] = ()
    slack: float = 16.0

    def __str__(self) -> str:
        return "-".join([self.layer.__name__, *map(str, self.arguments.values())])

    def make(self, dtype: str = "float32") -> keras.layers.Layer:
        return self.layer(**self.arguments, dtype=dtype)

    def tensors(self, dtype: str) -> list[tf.Tensor]:
        return [tf.cast(x, dtype) if x.dtype == np.float64 else tf.constant(x) for x in self.inputs]

    def expected(self, dtype: str) -> list[np.ndarray]:
        """The reference of the inputs as `dtype` holds them, computed in float64."""
        rounded = [
            tf.cast(tf.cast(x, dtype), "float64").numpy() if x.dtype == np.float64 else x for x in self.inputs
        ]
        return _as_list(self.reference(*rounded))

    def call(self, layer: Callable, tensors: list[Any]) -> list[Any]:
        return _as_list(layer(tensors[0] if len(tensors) == 1 else tensors))

    def assert_close(self, actual: list[Any], expected: list[Any], rounding: float) -> None:
        assert len(actual) == len(expected)
        for got, wanted in zip(actual, expected, strict=True):
            got = np.asarray(tf.cast(got, "float64"))
            wanted = np.asarray(wanted, np.float64)
            if self.exact:
                np.testing.assert_array_equal(got, wanted)
            else:
                tolerance = self.slack * rounding * np.abs(wanted).max()
                np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def check_numbers(case: LayerCase) -> None:
    """The layer gives what the independent NumPy version gives."""
    actual = case.call(case.make(), case.tensors("float32"))
    case.assert_close(actual, case.expected("float32"), 2.0**-23)


def check_compiled(case: LayerCase) -> None:
    """Graphs, with and without XLA, give the same numbers."""
    layer = case.make()
    for jit_compile in (False, True):
        compiled = tf.function(lambda x: case.call(layer, x), jit_compile=jit_compile)
        actual = compiled(case.tensors("float32"))
        case.assert_close(actual, case.expected("float32"), 2.0**-23)


def check_shapes(case: LayerCase) -> None:
    """What is promised of shapes, known or not, is what comes out."""
    layer = case.make()
    tensors = case.tensors("float32")
    outputs = case.call(layer, tensors)
    concrete = [tuple(x.shape) for x in tensors]
    promised = layer.compute_output_shape(concrete[0] if len(concrete) == 1 else concrete)
    promised = [promised] if len(outputs) == 1 else list(promised)
    assert [tuple(x.shape) for x in outputs] == [tuple(shape) for shape in promised]

    for unknown in ((0,), (0, *case.dynamic_axes)):
        shapes = [_forget(shape, unknown) for shape in concrete]
        symbolic = [keras.KerasTensor(shape, x.dtype.name) for shape, x in zip(shapes, tensors, strict=True)]
        specs = case.call(case.make(), symbolic)
        for spec, output in zip(specs, outputs, strict=True):
            assert spec.dtype == output.dtype.name
            assert len(spec.shape) == len(output.shape)
            for known, real in zip(spec.shape, output.shape, strict=True):
                assert known in (None, real)
            assert None in spec.shape and spec.shape[-1] == output.shape[-1]

        signature = [tf.TensorSpec(shape, x.dtype) for shape, x in zip(shapes, tensors, strict=True)]
        traced = tf.function(lambda *x: case.call(layer, list(x)), input_signature=signature)
        case.assert_close(traced(*tensors), case.expected("float32"), 2.0**-23)
        one = [x[:1] for x in tensors]
        for got, wanted in zip(traced(*one), case.call(layer, one), strict=True):
            np.testing.assert_array_equal(got, wanted)


def check_dtypes(case: LayerCase) -> None:
    """Every dtype policy is respected: outputs have its compute dtype and its precision."""
    for policy, compute_dtype, rounding in POLICIES:
        layer = case.make(policy)
        assert layer.compute_dtype == compute_dtype
        # float32 goes in: casting to the compute dtype is the layer's own duty.
        tensors = [
            tf.cast(tf.cast(x, compute_dtype), "float32") if x.dtype.is_floating else x
            for x in case.tensors("float32")
        ]
        outputs = case.call(layer, tensors)
        symbolic = [keras.KerasTensor(x.shape, x.dtype.name) for x in tensors]
        specs = case.call(case.make(policy), symbolic)
        for output, spec in zip(outputs, specs, strict=True):
            assert output.dtype.name in (compute_dtype, "uint8")
            assert spec.dtype == output.dtype.name
        case.assert_close(outputs, case.expected(compute_dtype), rounding)


def check_saving(case: LayerCase) -> None:
    """A functional model with the layer survives a .keras file, and needs no custom_objects."""
    tensors = case.tensors("float32")
    symbolic = [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in tensors]
    model = keras.Model(symbolic, case.call(case.make(), symbolic))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        reloaded = keras.models.load_model(path)
    for before, after in zip(_as_list(model(tensors)), _as_list(reloaded(tensors)), strict=True):
        np.testing.assert_array_equal(before, after)


def check_config(case: LayerCase) -> None:
    """`get_config` holds every constructor argument and rebuilds the layer."""
    layer = case.layer(**case.arguments, name="other_name", dtype="mixed_bfloat16")
    config = layer.get_config()
    for name, value in case.arguments.items():
        assert config[name] == value
    rebuilt = case.layer.from_config(config)
    assert rebuilt.get_config() == config
    assert rebuilt.name == "other_name" and rebuilt.compute_dtype == "bfloat16"
    copied = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copied) is case.layer and copied.get_config() == config


def check_gradients(case: LayerCase, step: float = 1e-5) -> None:
    """Gradients are central finite differences in float64, at every element of every float input."""
    layer = case.make("float64")
    inputs = [x for x in case.inputs if x.dtype == np.float64]
    if not inputs:
        return
    rng = np.random.default_rng(7)
    weights = [
        rng.standard_normal(x.shape) if x.dtype.is_floating else None
        for x in case.call(layer, case.tensors("float64"))
    ]

    def objective(tensors: list[tf.Tensor]) -> tf.Tensor:
        outputs = case.call(layer, tensors)
        return tf.add_n(
            [tf.reduce_sum(x * w) for x, w in zip(outputs, weights, strict=True) if w is not None]
        )

    tensors = case.tensors("float64")
    with tf.GradientTape() as tape:
        watched = [x for x in tensors if x.dtype.is_floating]
        tape.watch(watched)
        value = objective(tensors)
    gradients = tape.gradient(value, watched)
    compiled = tf.function(objective)
    positions = [i for i, x in enumerate(tensors) if x.dtype.is_floating]
    for position, gradient in zip(positions, gradients, strict=True):
        differences = np.empty(case.inputs[position].shape)
        for index in np.ndindex(differences.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = case.inputs[position].copy()
                moved[index] += sign * step
                values.append(compiled([*tensors[:position], tf.constant(moved), *tensors[position + 1 :]]))
            differences[index] = (values[0] - values[1]) / (2 * step)
        scale = max(np.abs(differences).max(), 1e-3)
        np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-7 * scale)


CHECKS = (
    check_numbers,
    check_compiled,
    check_shapes,
    check_dtypes,
    check_saving,
    check_config,
    check_gradients,
)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _forget(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(None if axis in axes else size for axis, size in enumerate(shape))
