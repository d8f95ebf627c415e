"""Adam with a learning-rate multiplier for each variable, as the authors' solver has it (SPEC 5)."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

BIAS_MULTIPLIER = 2.0
CLASS_SCORE_MULTIPLIER = 10.0
CLASS_SCORE_LAYER = "cls_score"


@keras.saving.register_keras_serializable("tfseg")
class AdamWithMultipliers(keras.optimizers.Adam):
    """`w -= lr * multiplier_w * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`, t from 1.

    Caffe scales Adam's step, not the gradient, which Adam would normalise away.

    Args:
        multipliers: One factor for each variable that the optimizer is built with, in their order.
        **kwargs: Of `keras.optimizers.Adam`; `epsilon` is 1e-8 unless given, as in Caffe.
    """

    def __init__(self, multipliers: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"epsilon": 1e-8, **kwargs})
        if self.amsgrad:
            raise ValueError("amsgrad=True: not supported")
        self.multipliers = [float(multiplier) for multiplier in multipliers]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments; raises ValueError unless there is one multiplier a variable."""
        if len(variables) != len(self.multipliers):
            raise ValueError(f"{len(self.multipliers)} multipliers for {len(variables)} variables")
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes Adam's step of one variable, scaled.

        One operation updates weight and moments in place. Written out as Keras does, it reads and writes
        arrays of the variable's size about twenty times, and holds several of them.
        """
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        beta1, beta2, epsilon = (tf.constant(x, dtype) for x in (self.beta_1, self.beta_2, self.epsilon))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1**step,
            beta2_power=beta2**step,
            lr=tf.cast(learning_rate, dtype) * self.multipliers[index],
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            grad=tf.cast(gradient, dtype),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "multipliers": self.multipliers}


def official_multipliers(variables: Sequence[keras.Variable]) -> list[float]:
    """Returns the authors' factors: biases 2, the class score layer 10 and 20, all else 1."""
    return [
        (CLASS_SCORE_MULTIPLIER if f"/{CLASS_SCORE_LAYER}/" in f"/{variable.path}" else 1.0)
        * (BIAS_MULTIPLIER if variable.path.endswith("/bias") else 1.0)
        for variable in variables
    ]
