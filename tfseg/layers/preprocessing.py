"""RGB pixels to what the VGG-16 of Caffe was trained on."""

from typing import Any

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable("tfseg")
class CaffeNormalization(keras.layers.Layer):
    """Reverses RGB to BGR and subtracts the mean; values are not scaled (SPEC 4.5, step 3).

    The model holds this step, so that training, export and server can never differ in it; black padding
    is added to images before it, as the authors do.

    Args:
        bgr_mean: Means of blue, green and red, in 0 to 255.

    Input shape:
        `[B, H, W, 3]`, RGB, 0 to 255.

    Output shape:
        The same, BGR.
    """

    def __init__(self, bgr_mean: tuple[float, float, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bgr_mean = tuple(bgr_mean)

    def call(self, image: KerasTensor) -> KerasTensor:
        """Normalises `image`; see the class for shapes."""
        return ops.flip(image, axis=-1) - ops.convert_to_tensor(self.bgr_mean, dtype=image.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "bgr_mean": self.bgr_mean}
