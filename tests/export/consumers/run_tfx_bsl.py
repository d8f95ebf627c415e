"""tfx-bsl's RunInference over serialized examples, in an Apache Beam pipeline."""

import sys

import apache_beam as beam
import numpy as np
import tensorflow as tf
from tfx_bsl.public.beam import RunInference
from tfx_bsl.public.proto import model_spec_pb2

export, samples, results = sys.argv[1:4]
inputs = np.load(samples)
example = tf.train.Example()
example.features.feature["image/encoded"].bytes_list.value.append(inputs["encoded"].tobytes())
example.features.feature["image/labels"].int64_list.value.append(int(inputs["label_encoded"][0]))
specification = model_spec_pb2.InferenceSpecType(
    saved_model_spec=model_spec_pb2.SavedModelSpec(model_path=export, signature_name=["examples"])
)


def write(log):
    outputs = log.predict_log.response.outputs
    mask = tf.io.decode_png(tf.make_ndarray(outputs["mask_bytes"]).ravel()[0]).numpy()[..., 0]
    np.savez(results, mask=mask)


with beam.Pipeline() as pipeline:
    _ = pipeline | beam.Create([example]) | RunInference(specification) | beam.Map(write)
