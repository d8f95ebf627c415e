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


@keras.saving.register_keras_serializable("tfseg")
class FeatureStandardization(keras.layers.Layer):
    """Brings each channel of a feature map to zero mean and unit variance, then scales.

    `outputs = scale * (inputs - mean) / stddev`, with the statistics of the training images. What a ReLU
    gives is positive: its mean, which all images and positions share, is several times what tells them
    apart, and the products of the attention would see little else.

    Args:
        scale: Factor on the standardised features.

    Attributes:
        mean: Weight `[D]`, not trained; 0 until `tfseg.training.start.measure_features` assigns it.
        stddev: Weight `[D]`, not trained; 1 until then.

    Input shape:
        `[B, h, w, D]`.

    Output shape:
        The same.
    """

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the statistics' weights."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.stddev = self.add_weight(shape=shape, initializer="ones", trainable=False, name="stddev")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """Standardises `inputs`; see the class for shapes."""
        mean, stddev = (ops.cast(weight, inputs.dtype) for weight in (self.mean, self.stddev))
        return (inputs - mean) * (self.scale / stddev)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "scale": self.scale}
