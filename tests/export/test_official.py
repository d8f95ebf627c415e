"""The official network's export, each signature called once on an image of 500x375.

About 9 GB of memory and 3 GB of disk: `make test-official-export` runs it and prints the figures.
"""

import io
import json
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export.publish import export_model
from export.verify import verify
from export.warmup import sample_image
from tfseg.config import preset
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.preprocessing import to_square
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir
from tfseg.models import build_classifier, build_transfernet

pytestmark = pytest.mark.skipif(
    not os.environ.get("TFSEG_OFFICIAL_EXPORT"), reason="large: make test-official-export runs it"
)
LABEL = 8
CONFIG = preset("official")


def square():
    return to_square(sample_image(375, 500), CONFIG.image_size)[None].astype(np.float32)


@pytest.fixture(scope="module")
def networks():
    """Random weights, but for the last layer: half of the image's pixels are foreground."""
    keras.utils.set_random_seed(0)
    network, classifier = build_transfernet(CONFIG), build_classifier(CONFIG)
    located = network({"image": square(), "label": np.array([LABEL])}, training=False)
    score = network.get_layer("decoder").get_layer("seg_score")
    height = int(CONFIG.image_size * 375 / 500)
    above = np.diff(located["mask_logits"][0, :height])
    scale = 2 / above.std()
    score.kernel.assign(scale * score.kernel)
    # Foreground is above a probability of 1/3, a difference of log 1/2.
    score.bias.assign([0.0, np.log(0.5) - scale * np.median(above)])
    return network, classifier


@pytest.fixture(scope="module")
def version_dir(networks, voc20_coco60, tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    directory = ModelDir(folder / "model", "transfernet", CONFIG, voc20_coco60)
    found = export_model(directory, *networks, folder / "out/1")
    size = sum(path.stat().st_size for path in (folder / "out/1").rglob("*") if path.is_file())
    print(f"\nexport: {size / 1e9:.2f} GB; differs from the Keras model by at most {found.difference:.1e}")
    return folder / "out/1"


@pytest.fixture(scope="module")
def answers(version_dir):
    """(answer, seconds) of each signature."""
    image = sample_image(375, 500)
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded.getvalue())
    example.features.feature["image/labels"].int64_list.value.append(LABEL)
    label, files = np.array([LABEL], np.int32), [encoded.getvalue()]
    requests = {
        "serving_default": {"image": image[None].astype(np.float32), "label": label},
        "pixels": {"image": image[None], "label": label},
        "labels": {"image": image[None], "labels": [[LABEL, -1]]},
        "attention": {"image": image[None], "label": label},
        "bytes": {"image_bytes": files, "label": label},
        "segment": {"image_bytes": files},
        "segment_labels": {"image_bytes": files, "labels": [[str(LABEL)]]},
        "classify": {"image": image[None].astype(np.float32)},
        "examples": {"examples": [example.SerializeToString()]},
    }
    loaded = tf.saved_model.load(str(version_dir))
    assert set(requests) == set(loaded.signatures)
    found = {}
    for name, inputs in requests.items():
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        start = time.perf_counter()
        answer = {key: value.numpy() for key, value in loaded.signatures[name](**tensors).items()}
        found[name] = answer, time.perf_counter() - start
    return found


def differences(answers, network, classifier, label_map):
    """How far each signature is from the `Segmenter`: numbers; masks, as a share of pixels."""
    image, label = sample_image(375, 500), np.array([LABEL])
    maps = network({"image": square(), "label": label}, training=False)
    segmenter = Segmenter(KerasNetwork(network, classifier), label_map)
    plain = Segmenter(KerasNetwork(network), label_map, background_factor=1.0).segment(image, [LABEL])
    named, predicted = segmenter.segment(image, [LABEL]), segmenter.segment(image)
    chosen = predicted.label_probabilities[np.array(predicted.labels) - 1]

    def far(name, key, expected):
        return float(np.abs(np.ravel(answers[name][0][key]) - np.ravel(expected)).max())

    def unlike(name, key, expected):
        mask = answers[name][0][key]
        if mask.dtype == object:
            mask = np.array(Image.open(io.BytesIO(mask.ravel()[0])))
        return float((mask.reshape(expected.shape) != expected).mean())

    assert answers["segment"][0]["labels"][0].tolist() == list(predicted.labels)
    numbers = {
        "serving_default": far("serving_default", "probability", plain.probabilities),
        "pixels": far("pixels", "probability", plain.probabilities),
        "labels": far("labels", "probability", [*plain.probabilities, 0 * plain.probabilities[0]]),
        "attention": max(far("attention", key, maps[key]) for key in ("attention", "densified")),
        "segment": far("segment", "scores", chosen),
        "classify": far("classify", "probability", predicted.label_probabilities),
    }
    keys = {"serving_default": "mask", "pixels": "mask", "labels": "label_map"}
    names = ("serving_default", "pixels", "labels", "bytes", "segment_labels", "examples")
    masks = {name: unlike(name, keys.get(name, "mask_bytes"), named.label_map) for name in names}
    masks["segment"] = unlike("segment", "mask_bytes", predicted.label_map)
    assert 0.05 < (named.label_map > 0).mean() < 0.95
    return numbers, masks


def test_each_signature(version_dir, answers, networks, voc20_coco60):
    numbers, masks = differences(answers, *networks, voc20_coco60)
    print(f"{'signature':16} {'gRPC':>10} {'JSON':>10} {'difference':>10} {'of the mask':>11} {'s':>6}")
    for name, (answer, seconds) in answers.items():
        wire, text = answer_sizes(answer)
        difference = f"{numbers[name]:.1e}" if name in numbers else "-"
        mask = f"{100 * masks[name]:.3f} %" if name in masks else "-"
        print(f"{name:16} {wire:>10,} {text:>10,} {difference:>10} {mask:>11} {seconds:6.1f}")
    assert max(numbers.values()) <= 1e-5
    assert max(masks.values()) < 0.002


def answer_sizes(answer):
    """Bytes of an answer as gRPC's message and as REST's JSON."""
    from serving_server import listed_as_json
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse()
    for key, value in answer.items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
    return response.ByteSize(), len(json.dumps({"outputs": listed_as_json(answer)}))


def test_a_copy_is_verified(version_dir):
    assert max(verify(version_dir).values()) <= 1e-5
