"""LiteRT converts the layers to operations of its own; it has no uint8 arithmetic, for instance."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfseg.layers import (
    AttendedFeature,
    DensifiedAttention,
    MaxPooling2DWithSwitches,
    MaxUnpooling2D,
    SpatialSoftmax,
)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_its_own_operations_are_enough():
    inputs = keras.Input((8, 8, 3), batch_size=1)
    pooled, switches = MaxPooling2DWithSwitches()(inputs)
    attention = SpatialSoftmax(4)(ops.reshape(pooled[..., 0], (1, 16)))
    attended = AttendedFeature()([pooled, attention])
    densified = DensifiedAttention()([pooled, attended])
    unpooled = MaxUnpooling2D()([pooled, switches])
    network = keras.Model(inputs, {"densified": densified, "unpooled": unpooled})
    call = tf.function(lambda image: network(image)).get_concrete_function(tf.TensorSpec((1, 8, 8, 3)))
    model = tf.lite.TFLiteConverter.from_concrete_functions([call], network).convert()
    image = np.maximum(np.random.default_rng(0).standard_normal((1, 8, 8, 3)), 0).astype(np.float32)
    found = tf.lite.Interpreter(model_content=model).get_signature_runner()(image=image)
    expected = network(image)
    np.testing.assert_array_equal(found["unpooled"], expected["unpooled"])
    np.testing.assert_allclose(found["densified"], expected["densified"], rtol=1e-5)
