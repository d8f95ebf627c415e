"""The label classifier measured alone: the separate one and that of stage 0."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from color_network import LABEL_MAP, draw
from small_networks import TWO_BLOCKS
from split_files import write_split

from tfseg import evaluate, train
from tfseg.config import BGR_MEAN_INFERENCE, BGR_MEAN_TRAIN
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluation.label_quality import evaluate_labels
from tfseg.evaluation.table import format_metrics
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir, read_model_dir, save_model_dir
from tfseg.models import build_classifier, build_transfernet

# Squares of the network's size are not resized, so that the network can be asked directly.
NAMES = ("red", "green", "blue")


@pytest.fixture
def classifier():
    keras.utils.set_random_seed(1)
    return build_classifier(TWO_BLOCKS)


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(9)]
    masks = [np.full((32, 32), 255, np.uint8) for _ in images]
    for mask, labels in zip(
        masks, [(1,), (1, 2), (2,), (), (3,), (1, 3), (1, 2, 3), (1,), (2,)], strict=True
    ):
        mask[0, : len(labels)] = labels
    return [(f"image{i}", *pair) for i, pair in enumerate(zip(images, masks, strict=True))]


@pytest.fixture
def split(tmp_path, samples):
    write_split(tmp_path / "data", LABEL_MAP, samples)
    return Split.load(tmp_path / "data", "target_val")


def _probabilities(classifier, samples):
    images = np.stack([image for _, image, _ in samples]).astype(np.float32)
    return 1 / (1 + np.exp(-np.asarray(classifier({"image": images})["class_logits"], np.float64)))


def test_f1_and_map_by_counting(classifier, split, samples):
    scores = _probabilities(classifier, samples)[:, :3]  # Label 4 is of the source.
    # Between two scores: on one of them float32 and float64 need not agree.
    middle = scores.size // 2
    threshold = float(np.sort(scores, axis=None)[middle - 1 : middle + 1].mean())
    quality = evaluate_labels(classifier, split, (1, 2, 3), threshold, batch_size=4)["label_quality"]
    hits = predicted = present = 0
    for score, (_, _, mask) in zip(scores, samples, strict=True):
        said = {j + 1 for j in range(3) if score[j] >= threshold} or {int(score.argmax()) + 1}
        there = set(mask.ravel().tolist()) - {255}
        hits, predicted, present = hits + len(said & there), predicted + len(said), present + len(there)
    assert 0 < hits < predicted
    assert quality["precision"] == pytest.approx(hits / predicted)
    assert quality["recall"] == pytest.approx(hits / present)
    assert quality["f1"] == pytest.approx(2 * hits / (predicted + present))
    averages = []
    for j, name in enumerate(NAMES):
        there = np.array([(mask == j + 1).any() for *_, mask in samples])
        order = np.argsort(-scores[:, j])
        precision = np.cumsum(there[order]) / np.arange(1, len(order) + 1)
        best = [precision[i:].max() for i in np.flatnonzero(there[order])]
        averages.append(np.mean(best))
        assert quality["per_label"][name]["average_precision"] == pytest.approx(averages[-1])
    assert quality["map"] == pytest.approx(np.mean(averages))


def test_batches_change_nothing_and_masks_are_not_needed(classifier, split):
    without = [info._replace(has_mask=False) for info in split.infos]
    bare = Split(
        split.data_dir, split.name, split.domain, LABEL_MAP, split.shards, tuple(without), split.summary
    )
    seen = []
    one = evaluate_labels(classifier, bare, (1, 2, 3), 0.5, 1, on_image=lambda *counts: seen.append(counts))
    assert one == evaluate_labels(classifier, split, (1, 2, 3), 0.5, 5)
    assert one["images"] == 9 and seen == [(i, 9) for i in range(1, 10)]
    assert "mAP" in format_metrics(one, "colors", "target")


def test_no_record_is_refused(classifier, tmp_path):
    write_split(tmp_path, LABEL_MAP, [])
    with pytest.raises(InputError, match="holds no record"):
        evaluate_labels(classifier, Split.load(tmp_path, "target_val"), (1,))


def _save_stage(directory, stage, model):
    checkpoint = tf.train.Checkpoint(model=model)
    tf.train.CheckpointManager(checkpoint, directory.path / stage, 1).save(checkpoint_number=0)


def test_segmenter_takes_the_stage_and_the_mean_that_are_asked_for(classifier, tmp_path):
    directory = ModelDir(tmp_path, "transfernet", TWO_BLOCKS, LABEL_MAP)
    model, other = build_transfernet(TWO_BLOCKS), build_classifier(TWO_BLOCKS)
    save_model_dir(directory, model, classifier)
    _save_stage(directory, "encoder", other)
    image = draw(32, 32)[0][:32, :32]
    expected = {
        (stage, mean): _sigmoid(_with_mean(network, values)({"image": image[None].astype(np.float32)}))
        for stage, network in (("classifier", classifier), ("encoder", other))
        for mean, values in (("training", BGR_MEAN_TRAIN), ("inference", BGR_MEAN_INFERENCE))
    }
    for (stage, mean), probabilities in expected.items():
        segmenter = Segmenter.load(tmp_path, classifier_stage=stage, bgr_mean=mean)
        found = segmenter.segment(image)
        np.testing.assert_allclose(found.label_probabilities, probabilities[0], rtol=1e-6)
        assert (segmenter.options.classifier_stage, segmenter.options.bgr_mean) == (stage, mean)
    values = list(expected.values())
    assert all((a != b).any() for i, a in enumerate(values) for b in values[i + 1 :])
    assert directory.fingerprint() != directory.fingerprint(("joint", "encoder"))


def _with_mean(network, mean):
    built = build_classifier(TWO_BLOCKS.replace(bgr_mean=mean))
    built.set_weights(network.get_weights())
    return built


def _sigmoid(outputs):
    return 1 / (1 + np.exp(-np.asarray(outputs["class_logits"])))


def test_a_saved_model_cannot_be_changed(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    for option in ({"bgr_mean": "inference"}, {"classifier_stage": "encoder"}):
        with pytest.raises(InputError, match="fixed; give its model_dir"):
            Segmenter.load(tmp_path, **option)


def test_stage_0_is_trained_on_a_fraction_and_measured(synthetic_records, tmp_path, capsys):
    """From `tfseg.train` to a result that says what it was trained on."""
    where = [f"--model_dir={tmp_path}", f"--data_dir={synthetic_records}"]
    small = ["--preset=tiny", "--image_size=32", "--encoder_weights=none", "--steps=1", "--batch_size=2"]
    fraction = ["--source_fraction=0.5", "--subset_seed=3"]
    assert train.main(["--stage=encoder", *where, *small, *fraction]) == 0
    run = json.loads((tmp_path / "encoder/run.json").read_text())
    assert run["data"]["source"]["fraction"] == 0.5 and run["data"]["target"]["fraction"] == 1.0
    labelled = sum(bool(info.labels) for info in Split.load(synthetic_records, "source_train").infos)
    assert run["data"]["source"]["images"] == round(labelled / 2)

    assert evaluate.main(["--method=labels", "--classifier_stage=encoder", *where]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "evaluation/target_val-labels-encoder/metrics.json"
    metrics = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert f"F1 {100 * metrics['label_quality']['f1']:.1f} %" in out
    assert "iou" not in metrics and metrics["images"] == 8
    assert set(metrics["weights"]) == {"model.json", "labels.json", "encoder/ckpt-1.index"}
    assert metrics["training"] == read_model_dir(tmp_path).training_record()
    assert metrics["training"]["encoder"]["data"] == run["data"]
    assert run["data"]["source"]["subset_seed"] == 3
    assert "--source_fraction=0.5" in metrics["training"]["encoder"]["flags"]
