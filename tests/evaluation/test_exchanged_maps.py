import keras
import numpy as np
import pytest
from color_network import LABEL_MAP
from keras import ops
from small_networks import TWO_BLOCKS
from split_files import write_split

from tfseg.data.records import Split
from tfseg.evaluation.masks import evaluate_masks
from tfseg.evaluation.settings import Settings
from tfseg.experiments.exchanged_maps import measure
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter
from tfseg.models import build_transfernet

SIZE, CELLS = 32, 8


def network(follows_map, fit="stretch"):
    """Finds label k at grey values of 40 k; its decoder draws the map, or all that is not black."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    features = keras.layers.AveragePooling2D(SIZE // CELLS)(image)
    encoder = keras.Model(image, {"features": features, "switches1": image[..., :1]}, name="encoder")
    inputs = {
        "features": keras.Input((CELLS, CELLS, 3), name="features"),
        "label": keras.Input((), dtype="int32", name="label"),
    }
    grey = ops.cast(inputs["label"], "float32")[:, None, None] * 40
    densified = ops.cast(ops.abs(inputs["features"][..., 0] - grey) < 1, "float32")
    attention = keras.Model(inputs, {"densified": densified}, name="attention")
    given = {
        "densified": keras.Input((CELLS, CELLS), name="densified"),
        "switches1": keras.Input((SIZE, SIZE, 1), name="switches1"),
    }
    shape = keras.layers.UpSampling2D(SIZE // CELLS)(given["densified"][..., None])
    if not follows_map:
        shape = ops.cast(given["switches1"] > 1, "float32") + 0 * shape
    logits = ops.concatenate([ops.zeros_like(shape), 20 * shape - 10], axis=-1)
    decoder = keras.Model(given, logits, name="decoder")
    whole = keras.Input((SIZE, SIZE, 3), name="image")
    encoded = encoder(whole)
    label = keras.Input((), dtype="int32")
    located = attention({"features": encoded["features"], "label": label})
    mask = decoder({"densified": located["densified"], "switches1": encoded["switches1"]})
    names = ops.one_hot(label, LABEL_MAP.num_labels)
    model = keras.Model([whole, label], {"mask_logits": mask, "class_logits": names})
    return KerasNetwork(model, image_fit=fit)


@pytest.fixture
def split(tmp_path):
    """A square of label 1 or 2 in an image, at another place in each."""
    samples = []
    for number in range(6):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        label, row, column = number % 2 + 1, 4 * (number % 3), 16 * (number // 3)
        mask[row : row + 12, column : column + 12] = label
        samples.append((f"i{number}", np.repeat(40 * mask[..., None], 3, -1), mask))
    write_split(tmp_path, LABEL_MAP, samples)
    return Split.load(tmp_path, "target_val")


def test_a_decoder_that_follows_its_map_needs_the_right_one(split):
    found = measure(network(follows_map=True), split, 1.0)
    assert found["own"] > 0.95  # Bicubic borders aside.
    assert found["mask"] > 0.95
    for way in ("wrong label", "other image", "mean", "constant"):
        assert found[way] < 0.6, way


def test_a_decoder_of_shapes_alone_draws_the_same_with_every_map(split):
    found = measure(network(follows_map=False), split, 1.0)
    assert found["own"] > 0.95
    assert len(set(found.values())) == 1


def test_the_mask_lies_where_the_padded_image_has_it(tmp_path):
    samples = []
    for label in (1, 2):
        mask = np.zeros((SIZE // 2, SIZE), np.uint8)
        mask[4:12, 8 * label : 8 * label + 12] = label
        samples.append((f"i{label}", np.repeat(40 * mask[..., None], 3, -1), mask))
    write_split(tmp_path, LABEL_MAP, samples)
    found = measure(network(follows_map=True, fit="pad"), Split.load(tmp_path, "target_val"), 1.0)
    assert found["own"] > 0.95
    assert found["mask"] > 0.95


@pytest.mark.parametrize("decoder_input", ["densified", "attention"])
def test_decoding_a_networks_own_maps_is_what_it_does(decoder_input):
    model = build_transfernet(TWO_BLOCKS.replace(decoder_input=decoder_input))
    whole = KerasNetwork(model, decoder_input=decoder_input)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    encoded, index, labels = whole.encode(images), [1, 0, 1], [2, 1, 4]
    maps = whole.decoder_maps(encoded, index, labels)
    inputs = {"image": images[index].astype(np.float32), "label": np.array(labels, np.int32)}
    outputs = model(inputs)
    np.testing.assert_allclose(maps, outputs[decoder_input], rtol=1e-5)
    expected = ops.softmax(outputs["mask_logits"])[..., 1]
    np.testing.assert_allclose(whole.decode(encoded, index, maps), expected, rtol=1e-5)


def test_with_its_own_maps_it_is_evaluated_as_tfseg_evaluate_does(tmp_path):
    """At another size than the network's, where the order of scaling and resizing tells."""
    keras.utils.set_random_seed(0)
    model = build_transfernet(TWO_BLOCKS)
    kernel = model.get_layer("decoder").get_layer("seg_score").kernel
    kernel.assign(100 * kernel)
    rng = np.random.default_rng(1)
    samples = [
        (f"i{number}", rng.integers(0, 256, (45, 71, 3), np.uint8), rng.integers(0, 3, (45, 71), np.uint8))
        for number in range(2)
    ]
    write_split(tmp_path, LABEL_MAP, samples)
    network, split = KerasNetwork(model), Split.load(tmp_path, "target_val")
    segmenter = Segmenter(network, LABEL_MAP, background_factor=0.25)
    expected = evaluate_masks(segmenter, split, Settings(labels="ground_truth"), tmp_path / "out")
    assert expected["miou"] > 0.1
    assert measure(network, split, 0.25)["own"] == pytest.approx(expected["miou"], rel=1e-9)
