"""The one derivative inside a network, DecoupledNet's, which `keras.ops` has no word for."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops


def gradient(function: Callable[[KerasTensor], KerasTensor], x: KerasTensor) -> KerasTensor:
    """Returns the gradient of `sum(function(x))` with respect to `x`, by the backend's own autodiff.

    Args:
        function: Differentiable and without state.
        x: Where to take it, of any shape.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        NotImplementedError: On a Keras backend other than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = ops.sum(function(x))
        return tape.gradient(total, x)
    if backend == "jax":
        import jax

        return jax.grad(lambda value: ops.sum(function(value)))(x)
    raise NotImplementedError(f"DecoupledNet needs the TensorFlow or JAX backend of Keras, not {backend}")
