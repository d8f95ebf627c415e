import keras
import numpy as np
import pytest
import tensorflow as tf
from color_network import COLORS, LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image

from tfseg.config import ModelConfig
from tfseg.errors import InputError
from tfseg.inference.crf import crf_parameters
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Query, Segmenter
from tfseg.models import BUILDERS, build_classifier, build_transfernet

CONFIG = ModelConfig(
    image_size=32,
    num_labels=4,
    encoder_blocks=((1, 4), (1, 6), (1, 8)),
    feature_scale=1.0,
    factors=8,
    classification_units=8,
    classifier_units=8,
    decoder_init="he",
)


def fake(**options):
    return Segmenter(ColorNetwork(**options), LABEL_MAP)


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(3)
    return build_transfernet(CONFIG), build_classifier(CONFIG)


@pytest.fixture
def images():
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(20, 45), (50, 31), (32, 32)]]


@pytest.mark.parametrize(("height", "width"), [(150, 260), (260, 150), (96, 96), (333, 200)])
@pytest.mark.parametrize("image_fit", ["pad", "stretch"])
def test_things_stay_where_they_are(height, width, image_fit):
    image, mask = draw(height, width)
    found = fake(image_size=160, map_size=20, image_fit=image_fit).segment(image)
    assert found.labels == (1, 2, 3)
    assert found.label_map.shape == (height, width)
    for label in (1, 2, 3):
        assert iou(mask == label, found.label_map == label) > 0.95
    np.testing.assert_array_equal(found.image, image)


def test_probabilities_and_maps_belong_to_their_labels():
    image, mask = draw(120, 200)
    found = fake().segment(image, labels=["blue", "red"])
    assert found.labels == (3, 1)
    assert found.probabilities.shape == (2, 120, 200)
    assert found.attention.shape == found.densified.shape == (2, 12, 12)
    assert found.label_probabilities is None
    for k, label in enumerate(found.labels):
        assert 0 <= found.probabilities[k].min() <= found.probabilities[k].max() <= 1
        assert iou(mask == label, found.probabilities[k] > 0.5) > 0.9
        # Cells of the map are 200 / 12 pixels wide.
        y, x = np.unravel_index(found.attention[k].argmax(), (12, 12))
        cell = mask[int(y * 200 / 12) : int((y + 1) * 200 / 12), int(x * 200 / 12) :][:, :17]
        assert (cell == label).mean() > 0.5


def test_exif_rotation_and_files(tmp_path):
    image, mask = draw(90, 140)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(path, exif=exif)
    found = fake(image_size=160, map_size=20).segment(path)
    assert found.label_map.shape == (90, 140)
    assert iou(mask == 1, found.label_map == 1) > 0.95


def test_predicted_labels_are_of_the_target_domain():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = COLORS[4]
    image[:, 30:] = COLORS[2]
    assert fake().segment(image).labels == (2,)
    both = Segmenter(ColorNetwork(), LABEL_MAP, label_domain="all").segment(image)
    assert both.labels == (2, 4)
    assert set(np.unique(both.label_map)) == {2, 4}


def test_image_is_encoded_once_and_pairs_are_packed():
    segmenter = fake()
    network = segmenter._network
    images = [draw(60, 80)[0]] * 5
    list(segmenter.segment_many(images, labels=[1, 2, 3], batch_size=4))
    assert network.encoded_images == 5
    assert network.located_batches == [4, 4, 4, 3]


def test_stream_keeps_order_and_own_labels():
    sizes = [(30 + 7 * i, 50 - 3 * i) for i in range(9)]
    labels = [(1,), (), (2, 1), (3,), None, ("red",), (), (1, 2, 3), (2,)]
    queries = [Query(draw(*size)[0], own) for size, own in zip(sizes, labels, strict=True)]
    results = list(fake().segment_many(queries, batch_size=2))
    assert [r.label_map.shape for r in results] == sizes
    expected = [(1,), (), (2, 1), (3,), (1, 2, 3), (1,), (), (1, 2, 3), (2,)]
    assert [r.labels for r in results] == expected
    assert not results[1].label_map.any()
    single = fake().segment(*(queries[7].image, queries[7].labels))
    np.testing.assert_array_equal(results[7].label_map, single.label_map)


def test_stream_reads_lazily():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield draw(20, 20)[0]

    stream = fake().segment_many(endless(), labels=["red"], batch_size=2)
    for _ in range(5):
        next(stream)
    stream.close()
    assert len(taken) < 30


def test_unreadable_images_keep_their_place(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    images = [draw(20, 30)[0], bad, draw(30, 20)[0], tmp_path / "none.png"]
    results = list(fake().segment_many(images, keep_errors=True, batch_size=2))
    assert [isinstance(r, InputError) for r in results] == [False, True, False, True]
    assert "bad.jpg" in str(results[1])
    with pytest.raises(InputError, match=r"bad\.jpg"):
        list(fake().segment_many(images))


def test_labels_must_be_known_or_predictable():
    image = draw(20, 30)[0]
    with pytest.raises(InputError, match="names red, green, blue, yellow"):
        fake().segment(image, labels=["cat"])
    with pytest.raises(InputError, match="names red, green, blue, yellow"):
        list(fake().segment_many([image], labels=["cat"], keep_errors=True))
    with pytest.raises(InputError, match="no classifier"):
        fake(can_classify=False).segment(image)
    with pytest.raises(InputError, match="no classifier"):
        list(fake(can_classify=False).segment_many([image], keep_errors=True))


@pytest.mark.parametrize("processes", [1, 2])
def test_crf_decides_and_processes_agree(processes):
    pytest.importorskip("pydensecrf")
    images = [draw(60, 90)[0], draw(90, 60)[0]]
    segmenter = fake()
    crf = crf_parameters("symmetric")
    results = list(segmenter.segment_many(images, [1, 2], crf=crf, crf_processes=processes))
    for image, result in zip(images, results, strict=True):
        alone = segmenter.segment(image, [1, 2], crf=crf)
        assert result.foreground.dtype == bool
        np.testing.assert_array_equal(result.foreground, alone.foreground)
        np.testing.assert_array_equal(result.label_map, alone.label_map)
        assert not result.label_map[~result.foreground.any(axis=0)].any()


def test_agrees_with_the_whole_model(models, images):
    """The pieces run apart must give what model and classifier give in one call, one pair each."""
    model, classifier = models
    segmenter = Segmenter(KerasNetwork(model, classifier), LABEL_MAP, label_domain="all", label_threshold=0.5)
    results = list(segmenter.segment_many(images, batch_size=2))
    for image, result in zip(images, results, strict=True):
        side = max(image.shape)
        padded = np.zeros((1, side, side, 3), np.float32)
        padded[0, : image.shape[0], : image.shape[1]] = image
        square = tf.image.resize(padded, (32, 32), antialias=True)
        logits = classifier({"image": square})["class_logits"][0].numpy()
        scores = tf.sigmoid(logits)
        np.testing.assert_allclose(result.label_probabilities, scores, atol=0.02)
        for k, label in enumerate(result.labels):
            whole = model({"image": square, "label": tf.constant([label])})
            logits = whole["mask_logits"][0].numpy().astype(np.float64)
            p = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]) / 2)
            p = tf.image.resize(p[..., None], (side, side), "bicubic", antialias=True)[..., 0]
            p = np.clip(p.numpy()[: image.shape[0], : image.shape[1]], 0, 1)
            # Bytes are rounded on one way only, and a rounding may flip a switch.
            assert np.abs(result.probabilities[k] - p).mean() < 0.02
            np.testing.assert_allclose(result.attention[k], whole["attention"][0], atol=0.02)


@pytest.mark.parametrize("name", BUILDERS)
def test_exact_where_no_resizing_rounds(name):
    keras.utils.set_random_seed(3)
    model = BUILDERS[name](CONFIG)
    segmenter = Segmenter(KerasNetwork(model), LABEL_MAP)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    found = segmenter.segment(image, labels=[4, 1, 2])
    for k, label in enumerate((4, 1, 2)):
        whole = model({"image": image[None].astype(np.float32), "label": np.array([label])})
        p = tf.nn.softmax(whole["mask_logits"][0] + [0, np.log(2)])[..., 1]
        np.testing.assert_allclose(found.probabilities[k], p, atol=1e-5)
        np.testing.assert_allclose(found.attention[k], whole["attention"][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.densified[k], whole["densified"][0], rtol=1e-4, atol=1e-4)


def test_decoder_input_of_the_ablation():
    keras.utils.set_random_seed(4)
    model = build_transfernet(CONFIG.replace(decoder_input="attention"))
    segmenter = Segmenter(KerasNetwork(model, None, "attention"), LABEL_MAP)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    whole = model({"image": image[None].astype(np.float32), "label": np.array([2])})
    p = tf.nn.softmax(whole["mask_logits"][0] + [0, np.log(2)])[..., 1]
    np.testing.assert_allclose(segmenter.segment(image, [2]).probabilities[0], p, atol=1e-5)


def test_one_trace_whatever_the_batch(models, images):
    model, classifier = models
    segmenter = Segmenter(KerasNetwork(model, classifier), LABEL_MAP)
    for count in (1, 2, 3):
        list(segmenter.segment_many(images[:count], batch_size=count))
        list(segmenter.segment_many(images[:count], [1, 2, 3, 4][:count], batch_size=count))
    network = segmenter._network
    for function in (network._encode, network._locate, network._classifier._classify):
        assert function.experimental_get_tracing_count() == 1


def test_load_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"model\.json.*saved_model\.pb"):
        Segmenter.load(tmp_path)


@pytest.mark.parametrize("options", [{"label_threshold": 1.2}, {"background_factor": 0.0}])
def test_impossible_options(options):
    with pytest.raises(InputError, match="must be"):
        Segmenter(ColorNetwork(), LABEL_MAP, **options)


def export(models, folder, classify=True):
    """A SavedModel by the contract of the exports, written without the export code."""
    import json

    model, classifier = models
    module = tf.Module()
    module.parts = [model, classifier]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 32, 32, 3], tf.float32, "image"),
            tf.TensorSpec([None], tf.int32, "label"),
        ]
    )
    def serve(image, label):
        logits = model({"image": image, "label": label}, training=False)["mask_logits"]
        return {"probability": tf.nn.softmax(logits)[..., 1]}

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, "image")])
    def name_labels(image):
        return {"probability": tf.sigmoid(classifier({"image": image})["class_logits"])}

    signatures = {"serving_default": serve} | ({"classify": name_labels} if classify else {})
    tf.saved_model.save(module, str(folder), signatures)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "labels.json").write_text(json.dumps(LABEL_MAP.to_dict()))


def test_saved_model_gives_what_keras_gives(models, images, tmp_path):
    export(models, tmp_path / "2")
    (tmp_path / "tmp").mkdir()
    exported = Segmenter.load(tmp_path)
    own = Segmenter(KerasNetwork(*models), LABEL_MAP)
    theirs = list(exported.segment_many(images, batch_size=2))
    for mine, other in zip(own.segment_many(images), theirs, strict=True):
        assert other.labels == mine.labels
        np.testing.assert_allclose(other.probabilities, mine.probabilities, atol=1e-5)
        assert other.attention is None


def test_saved_model_without_classify(models, images, tmp_path):
    export(models, tmp_path / "1", classify=False)
    exported = Segmenter.load(tmp_path / "1")
    assert exported.segment(images[0], ["red"]).labels == (1,)
    with pytest.raises(InputError, match="no classifier"):
        exported.segment(images[0])


def test_model_dir(models, images, tmp_path):
    from tfseg.model_dir import ModelDir, save_model_dir

    save_model_dir(ModelDir(tmp_path, "transfernet", CONFIG, LABEL_MAP), *models)
    loaded = Segmenter.load(tmp_path, label_domain="all").segment(images[0])
    mine = Segmenter(KerasNetwork(*models), LABEL_MAP, label_domain="all").segment(images[0])
    assert loaded.labels == mine.labels
    np.testing.assert_allclose(loaded.probabilities, mine.probabilities, atol=1e-6)
