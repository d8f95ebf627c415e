"""Each signature of an export against `Segmenter` over the Keras model, and what each refuses."""

import io
import resource

import numpy as np
import pytest
import tensorflow as tf
from image_files import broken, encode, picture
from PIL import Image

from export import contract
from tfseg.data.images import read_image
from tfseg.inference.postprocessing import scale_background
from tfseg.inference.preprocessing import to_square

SIZES = [(51, 77), (90, 40), (32, 32), (20, 9)]


def images(count=4):
    return [np.asarray(picture(*SIZES[i % 4], seed=i).convert("RGB")) for i in range(count)]


def files(count=4):
    kinds = ("PNG", "JPEG")
    return [encode(Image.fromarray(image), kinds[i % 2]) for i, image in enumerate(images(count))]


def call(signatures, name, **inputs):
    answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in answer.items()}


def pixels(png):
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.format == "PNG" and opened.mode == "L"
        return np.array(opened)


def plain_probability(exported, image, label):
    """Softmax foreground in NumPy, brought back by Pillow."""
    square = to_square(image, exported.config.image_size)[None].astype(np.float32)
    logits = exported.network({"image": square, "label": np.array([label])})["mask_logits"].numpy()
    logits = logits[0].astype(np.float64)
    probability = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    side = max(image.shape[:2])
    whole = Image.fromarray(probability.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(whole).clip(0, 1)[: image.shape[0], : image.shape[1]]


def assert_same_mask(mask, expected):
    """All pixels but those few where the probability is at the threshold."""
    assert mask.shape == expected.shape and mask.dtype == np.uint8
    assert (mask != expected).mean() < 0.002


@pytest.mark.parametrize("size", SIZES)
def test_serving_default_locates_one_label_in_images_of_any_size(exported, signatures, size):
    image = np.asarray(picture(*size, seed=5).convert("RGB"))
    labels = np.array([1, 4], np.int32)
    answer = call(
        signatures,
        "serving_default",
        image=np.stack([image, image[:, ::-1]]).astype(np.float32),
        label=labels,
    )
    assert set(answer) == {"probability", "mask"}
    for row, (seen, label) in enumerate(((image, 1), (image[:, ::-1], 4))):
        expected = plain_probability(exported, seen, label)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(answer["probability"][row], expected, rtol=0, atol=1e-5)
        found = exported.segmenter.segment(seen, [label])
        assert_same_mask(answer["mask"][row], found.label_map)
    # uint8 gives the same, to the last bit.
    of_bytes = call(signatures, "pixels", image=np.stack([image, image[:, ::-1]]), label=labels)
    for name, value in answer.items():
        np.testing.assert_array_equal(of_bytes[name], value)
    assert 4 in np.unique(answer["mask"]) and set(np.unique(answer["mask"])) <= {0, 1, 4}


def test_requests_of_the_first_exports_get_their_answer(exported, signatures):
    """float32 of the network's square: the plain softmax, not resampled."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    label = np.array([1, 5, 3], np.int32)
    logits = exported.network({"image": image, "label": label})["mask_logits"].numpy()
    expected = 1 / (1 + np.exp(logits[..., 0].astype(np.float64) - logits[..., 1]))
    answer = call(signatures, "serving_default", image=image, label=label)
    np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=1e-5)
    classes = exported.classifier({"image": image})["class_logits"].numpy()
    answer = call(signatures, "classify", image=image)
    np.testing.assert_allclose(answer["probability"], 1 / (1 + np.exp(-classes)), rtol=0, atol=1e-5)


def test_labels_gives_each_label_and_the_merged_map(exported, signatures):
    image = np.stack(images(1) * 2)
    image[1] = image[1, ::-1]
    labels = np.array([[3, 1, -1], [2, 5, 4]], np.int32)
    answer = call(signatures, "labels", image=image, labels=labels)
    assert answer["probability"].shape == (2, 3, 51, 77) and answer["probability"].dtype == np.float32
    for row in range(2):
        wanted = [label for label in labels[row] if label > 0]
        for column, label in enumerate(wanted):
            expected = plain_probability(exported, image[row], label)
            np.testing.assert_allclose(answer["probability"][row, column], expected, rtol=0, atol=1e-5)
        assert_same_mask(answer["label_map"][row], exported.segmenter.segment(image[row], wanted).label_map)
    assert (answer["probability"][0, 2] == 0).all()
    assert len(np.unique(answer["label_map"])) > 2
    nothing = call(signatures, "labels", image=image, labels=np.full((2, 1), -1, np.int32))
    assert (nothing["label_map"] == 0).all()


def test_bytes_takes_files_of_mixed_sizes(exported, signatures):
    label = np.array([1, 4, 2, 5], np.int32)
    masks = call(signatures, "bytes", image_bytes=files(), label=label)["mask_bytes"]
    for file, mask, one in zip(files(), masks, label, strict=True):
        assert_same_mask(pixels(mask), exported.segmenter.segment(file, [one]).label_map)


def test_segment_does_the_whole_job(exported, signatures):
    answer = call(signatures, "segment", image_bytes=files())
    assert set(answer) == {"labels", "names", "scores", "mask_bytes"}
    for row, file in enumerate(files()):
        expected = exported.segmenter.segment(file)
        count = len(expected.labels)
        assert answer["labels"][row].tolist() == [
            *expected.labels,
            *[-1] * (answer["labels"].shape[1] - count),
        ]
        names = [exported.label_map.label(label).name.encode() for label in expected.labels]
        assert answer["names"][row, :count].tolist() == names
        scores = expected.label_probabilities[np.array(expected.labels) - 1]
        np.testing.assert_allclose(answer["scores"][row, :count], scores, rtol=0, atol=1e-5)
        assert_same_mask(pixels(answer["mask_bytes"][row]), expected.label_map)
    assert answer["labels"].max() <= 2  # The target domain's.


def test_segment_labels_takes_names_aliases_and_ids(exported, signatures):
    words = [["hound", "4", ""], ["cat", "wine glass", "5"]]
    answer = call(signatures, "segment_labels", image_bytes=files(2), labels=words)
    assert answer["labels"].tolist() == [[1, 4, -1], [2, 3, 5]]
    assert answer["names"].tolist() == [[b"dog", b"bench", b""], [b"cat", b"wine glass", b"zebra"]]
    for row, ids in enumerate(([1, 4], [2, 3, 5])):
        expected = exported.segmenter.segment(files(2)[row], ids).label_map
        assert_same_mask(pixels(answer["mask_bytes"][row]), expected)


def test_a_turned_photograph_comes_back_upright(exported, signatures):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encode(picture().convert("RGB"), "JPEG", exif=exif)
    mask = pixels(call(signatures, "bytes", image_bytes=[file], label=[4])["mask_bytes"][0])
    assert mask.shape == (77, 51) == read_image(file).shape[:2]
    assert_same_mask(mask, exported.segmenter.segment(file, [4]).label_map)


def test_attention_gives_both_maps(exported, signatures):
    image, label = np.stack(images(1)), np.array([3], np.int32)
    answer = call(signatures, "attention", image=image, label=label)
    square = to_square(image[0], 32)[None].astype(np.float32)
    expected = exported.network({"image": square, "label": label})
    for name in ("attention", "densified"):
        assert answer[name].shape == (1, 8, 8)
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer["attention"].sum(), 1, rtol=1e-5)


def example(file, labels=()):
    message = tf.train.Example()
    message.features.feature["image/encoded"].bytes_list.value.append(file)
    if labels:
        message.features.feature["image/labels"].int64_list.value.extend(labels)
    return message.SerializeToString()


def test_examples_segments_records(exported, signatures):
    sent = [example(files()[0], (2, 5)), example(files()[1])]
    answer = call(signatures, "examples", examples=sent)
    predicted = exported.segmenter.segment(files()[1])
    for row, expected in enumerate((exported.segmenter.segment(files()[0], [2, 5]), predicted)):
        assert [label for label in answer["labels"][row] if label > 0] == list(expected.labels)
        assert_same_mask(pixels(answer["mask_bytes"][row, 0]), expected.label_map)


def test_examples_takes_the_records_of_the_builders(signatures, synthetic_records):
    (shard, *_) = sorted(synthetic_records.glob("target_val-*.tfrecord"))
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(shard)).take(2)]
    for serialized in records:  # Labels beyond the five of this model.
        message = tf.train.Example.FromString(serialized)
        listed = [label for label in message.features.feature["image/labels"].int64_list.value if label <= 5]
        message.features.feature["image/labels"].int64_list.value[:] = listed or [1]
        answer = call(signatures, "examples", examples=[message.SerializeToString()])
        size = (message.features.feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width"))
        assert pixels(answer["mask_bytes"][0, 0]).shape == tuple(size)


def test_probability_is_plain_and_the_mask_weakens_the_background(signatures):
    image = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    answer = call(signatures, "serving_default", image=image, label=[4])
    np.testing.assert_array_equal(
        answer["mask"] == 4, scale_background(answer["probability"].clip(0, 1), 0.5) > 0.5
    )


def refusal(signatures, name, **inputs):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        call(signatures, name, **inputs)
    return " ".join(str(caught.value).split())


def test_a_wrong_row_is_named(signatures):
    """Row, field, value and what is allowed."""
    image = np.stack(images(1) * 2).astype(np.float32)
    nan, bright = image.copy(), image.copy()
    nan[1, 3, 4, 0] = np.nan
    bright[1, 0, 0, 0] = 300
    pixels8 = image.astype(np.uint8)
    good = files(2)
    for name, inputs, said in (
        ("serving_default", {"image": image, "label": [1, 999]}, "row 1: label: 999; allowed are 1 to 5"),
        ("serving_default", {"image": image, "label": [0, 1]}, "row 0: label: 0; allowed are 1 to 5"),
        ("serving_default", {"image": image, "label": [1]}, "label: has 1 rows for 2 images"),
        ("serving_default", {"image": nan, "label": [1, 1]}, "row 1: image: has values that are NaN"),
        ("serving_default", {"image": bright, "label": [1, 1]}, "row 1: image: has values from 0"),
        (
            "serving_default",
            {"image": image[:0], "label": np.zeros(0, np.int32)},
            "image: has 0 rows; allowed are 1 and more",
        ),
        ("serving_default", {"image": image[:, :0], "label": [1, 1]}, "77x0 pixels; allowed are 1x1 to"),
        ("classify", {"image": nan}, "row 1: image: has values that are NaN"),
        (
            "labels",
            {"image": pixels8, "labels": [[1, -1], [2, 6]]},
            "row 1: labels: 6; allowed are 1 to 5, and -1 for none",
        ),
        ("attention", {"image": pixels8, "label": [1, 6]}, "row 1: label: 6"),
        ("pixels", {"image": pixels8, "label": [1, 6]}, "row 1: label: 6"),
        ("bytes", {"image_bytes": good, "label": [1, -7]}, "row 1: label: -7; allowed are 1 to 5"),
        (
            "bytes",
            {"image_bytes": tf.zeros(0, tf.string), "label": np.zeros(0, np.int32)},
            "image_bytes: has 0 rows",
        ),
        (
            "segment_labels",
            {"image_bytes": good, "labels": [["dog"], ["dgo"]]},
            "row 1: labels: no label is called dgo; allowed are the ids 1 to 5 and the names dog, cat, wine",
        ),
        ("segment_labels", {"image_bytes": good, "labels": [["dog"], [""]]}, "row 1: labels: holds no label"),
        (
            "examples",
            {"examples": [example(good[0]), example(good[1], (3, 9))]},
            "row 1: image/labels: 9; allowed are 1 to 5",
        ),
        ("examples", {"examples": [example(good[0]), example(b"")]}, "row 1: image/encoded: is empty"),
    ):
        assert said in refusal(signatures, name, **inputs), (name, said)
    big = np.zeros((1, 1, 8193, 3), np.uint8)
    said = "image: rows have 8193x1 pixels; allowed are 1x1 to 25000000 in all and 8192 along a side"
    assert said in refusal(signatures, "labels", image=big, labels=[[1]])
    many = np.full((1, 400), 1, np.int32)
    said = "labels: 80000000 probabilities are asked for"
    assert said in refusal(signatures, "labels", image=np.zeros((1, 400, 500, 3), np.uint8), labels=many)


@pytest.mark.parametrize("name", broken())
def test_a_broken_file_is_named(signatures, name):
    file, said = broken()[name]
    sent = [*files(2), file]
    assert f"row 2: image_bytes: {said}" in refusal(signatures, "segment", image_bytes=sent)


def test_a_bomb_is_refused_before_it_is_decoded(signatures):
    """It claims 144 million pixels, 432 MB; the process must not grow by anything like it."""
    file, _ = broken()["png that unpacks to gigabytes"]
    refusal(signatures, "segment", image_bytes=[file])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(signatures, "segment", image_bytes=[file] * 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_the_contract_is_the_signatures(signatures, exported):
    import json

    described = json.loads((exported.version_dir / "assets.extra/export.json").read_text())
    assert described["signatures"] == contract.signatures()
    assert set(signatures) == set(described["signatures"])
    for name, entry in described["signatures"].items():
        function = signatures[name]
        for side, given in (
            ("inputs", function.structured_input_signature[1]),
            ("outputs", function.structured_outputs),
        ):
            assert set(given) == set(entry[side]), (name, side)
            for key, specification in given.items():
                assert specification.dtype.name == entry[side][key]["dtype"], (name, key)
                assert specification.shape.rank == entry[side][key]["shape"].count(",") + 1, (name, key)
                assert len(entry[side][key]["meaning"]) > 10
    assert described["limits"] == {"pixels": 25_000_000, "side": 8192, "probabilities": 2**26, "labels": 5}
    assert described["label_map"] == exported.label_map.to_dict()
    assert described["image_size"] == 32 and described["background_factor"] == 0.5
