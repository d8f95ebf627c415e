import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from color_network import LABEL_MAP, ColorNetwork, draw
from PIL import Image
from small_networks import TWO_BLOCKS
from split_files import write_split

import tfseg.evaluate
from tfseg import cli
from tfseg.data.examples import mask_labels
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.data.voc_colors import palette
from tfseg.errors import InputError
from tfseg.evaluation import published
from tfseg.evaluation.masks import evaluate_masks
from tfseg.evaluation.progress import Progress
from tfseg.evaluation.settings import Settings
from tfseg.evaluation.table import format_metrics
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import build_classifier, build_transfernet

SIZES = [(90, 140), (140, 90), (100, 100), (60, 150)]


@pytest.fixture
def samples():
    result = []
    for number, size in enumerate(SIZES):
        image, mask = draw(*size)
        mask[:4, :4] = 255
        result.append((f"2007_{number:06d}", image, mask))
    return result


@pytest.fixture
def split(tmp_path, samples):
    unmasked = ("plain", samples[0][1], None)
    write_split(tmp_path / "data", LABEL_MAP, [*samples, unmasked])
    return Split.load(tmp_path / "data", "target_val")


def segmenter(**options):
    return Segmenter(ColorNetwork(160, 20), LABEL_MAP, **options)


@pytest.mark.parametrize("labels", ["predicted", "ground_truth"])
def test_a_network_that_is_right_scores_high(split, tmp_path, labels):
    metrics = evaluate_masks(segmenter(), split, Settings(labels=labels), tmp_path / "out")
    assert metrics["images"] == 4
    assert metrics["images_without_mask"] == 1
    assert list(metrics["iou"]) == ["background", "red", "green", "blue"]
    assert metrics["classes_counted"] == 4
    assert min(metrics["iou"].values()) > 0.95
    assert metrics["miou"] == pytest.approx(np.mean(list(metrics["iou"].values())))
    assert ("label_quality" in metrics) == (labels == "predicted")


def test_numbers_equal_the_label_maps_at_original_size(split, samples, tmp_path):
    wrong = segmenter(label_threshold=1.0)  # the most probable label alone: red, the first
    metrics = evaluate_masks(wrong, split, Settings(save_comp6=True), tmp_path / "out")
    folder = tmp_path / "out/results/VOC2012/Segmentation/comp6_val_cls"
    assert sorted(path.name for path in folder.iterdir()) == [f"{s[0]}.png" for s in samples]
    hit, union = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for name, _, truth in samples:
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.reshape(picture.getpalette(), (-1, 3))[:4], palette()[:4])
            found = np.array(picture)
        assert found.shape == truth.shape
        for label in range(4):
            kept = truth != 255
            hit[label] += ((truth == label) & (found == label))[kept].sum()
            union[label] += ((truth == label) | (found == label))[kept].sum()
    expected = [hit[label] / union[label] for label in range(4)]
    np.testing.assert_allclose(list(metrics["iou"].values()), expected)
    quality = metrics["label_quality"]
    assert quality["precision"] == 1.0
    assert quality["recall"] == pytest.approx(1 / 3)
    assert quality["exact_set"] == 0.0


def test_ground_truth_labels_are_those_of_the_mask():
    assert mask_labels(np.uint8([[0, 3], [255, 1]])) == (1, 3)
    assert mask_labels(np.uint8([[0, 255]])) == ()


def test_image_without_any_label_is_background(tmp_path):
    image, _ = draw(40, 50)
    mask = np.zeros((40, 50), np.uint8)
    write_split(tmp_path, LABEL_MAP, [("a", image, mask)])
    split = Split.load(tmp_path, "target_val")
    metrics = evaluate_masks(segmenter(), split, Settings(labels="ground_truth"), tmp_path / "out")
    assert metrics["iou"] == {"background": 1.0, "red": None, "green": None, "blue": None}
    assert metrics["miou"] == 1.0
    assert metrics["classes_counted"] == 1


class StopNowError(Exception):
    pass


def interrupt_after(images):
    def on_image(done, total):
        if done == images:
            raise StopNowError

    return on_image


def test_interrupted_evaluation_goes_on(split, tmp_path):
    key = {"ckpt": "1"}
    settings = Settings(batch_size=1)
    whole = evaluate_masks(segmenter(), split, settings, tmp_path / "whole", key)
    with pytest.raises(StopNowError):
        evaluate_masks(segmenter(), split, settings, tmp_path / "out", key, interrupt_after(2))
    # A kill may cut the last line off.
    with open(tmp_path / "out/progress.jsonl", "a") as file:
        file.write('{"record": 2, "counts"')
    second = segmenter()
    resumed = evaluate_masks(second, split, settings, tmp_path / "out", key)
    assert second._network.encoded_images == 2
    assert resumed == whole
    third = segmenter()
    assert evaluate_masks(third, split, settings, tmp_path / "out", key) == whole
    assert third._network.encoded_images == 0


@pytest.mark.parametrize("change", ["weights", "settings", "options", "data"])
def test_progress_of_something_else_is_not_taken(split, samples, tmp_path, change):
    evaluate_masks(segmenter(), split, Settings(), tmp_path / "out", {"ckpt": "1"})
    again = segmenter(**({"background_factor": 1.0} if change == "options" else {}))
    settings = Settings(labels="ground_truth") if change == "settings" else Settings()
    if change == "data":
        write_split(tmp_path / "data", LABEL_MAP, samples[:2])
        split = Split.load(tmp_path / "data", "target_val")
    weights = {"ckpt": "2"} if change == "weights" else {"ckpt": "1"}
    evaluate_masks(again, split, settings, tmp_path / "out", weights)
    assert again._network.encoded_images == (2 if change == "data" else 4)


def test_progress_file(tmp_path):
    progress = Progress(tmp_path / "p.jsonl", {"a": 1})
    progress.add(3, {"x": [1, 2]})
    progress.close()
    again = Progress(tmp_path / "p.jsonl", {"a": 1})
    assert again.done == {3: {"record": 3, "x": [1, 2]}}
    again.close()
    other = Progress(tmp_path / "p.jsonl", {"a": 2})
    assert other.done == {}
    other.close()


@pytest.mark.parametrize(
    "damage", [b"\xff\x00", b"", b"[]", b'"key"', b"{}", b"null", b'{"record": 1}', b"[" * 100_000, "digit"]
)
def test_of_a_damaged_progress_file_what_stands_before_is_kept(tmp_path, damage, capsys):
    path = tmp_path / "p.jsonl"
    progress = Progress(path, {"a": 1})
    for record in range(4):
        progress.add(record, {"counts": {"x": [[1, record], [2, 0.25]]}, "labels": (1, 2), "scores": None})
    progress.close()
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"[[1, 2]", b"[[7, 2]") if damage == "digit" else damage
    path.write_bytes(b"\n".join(lines))
    again = Progress(path, {"a": 1})
    assert list(again.done) == [0, 1]
    assert capsys.readouterr().err == f"{path}: line 4 is damaged; the 3 before it are kept\n"
    again.add(2, {"counts": {}})
    again.close()
    third = Progress(path, {"a": 1})
    assert list(third.done) == [0, 1, 2] and capsys.readouterr().err == ""
    third.close()


def test_attention_control(split, tmp_path):
    settings = Settings(labels="ground_truth", method="attention")
    metrics = evaluate_masks(segmenter(), split, settings, tmp_path / "out")
    grid = metrics["attention_thresholds"]
    assert set(grid) == {"attention", "densified"}
    assert set(grid["attention"]) == {f"0.{i}" for i in range(1, 10)}
    best = max(value for row in grid.values() for value in row.values())
    assert metrics["miou"] == best
    name, threshold = metrics["best_threshold"].split("@")
    assert grid[name][threshold] == best
    # A coarse map of a right network is neither useless nor sharp.
    assert 0.4 < best < 0.95
    shares = metrics["attention_shares"]
    assert shares["inside"] > 0.7 and shares["uniform_border"] == pytest.approx(76 / 400)
    assert list(shares["by_class"]["inside"]) == [name for name in metrics["iou"] if name != "background"]
    text = format_metrics(metrics, "colors", "target")
    assert "threshold" in text and f"{100 * shares['inside']:.1f} % on the object" in text
    again = evaluate_masks(segmenter(), split, settings, tmp_path / "again", {"weights": "a"})
    resumed = evaluate_masks(segmenter(), split, settings, tmp_path / "again", {"weights": "a"})
    assert resumed["attention_shares"] == again["attention_shares"] == shares


def test_attention_control_goes_without_crf():
    with pytest.raises(InputError, match="without crf"):
        Settings(method="attention", save_comp6=True)


def test_damage_names_file_and_record(tmp_path, samples):
    strange = samples[1][2].copy()
    strange[10, 10] = 4  # of the source domain
    write_split(tmp_path, LABEL_MAP, [samples[0], ("odd", samples[1][1], strange)])
    split = Split.load(tmp_path, "target_val")
    with pytest.raises(InputError, match=r"target_val-00000.*record 1 \(odd\).*\[4\]"):
        evaluate_masks(segmenter(), split, Settings(), tmp_path / "out")
    small = np.zeros((5, 6), np.uint8)
    write_split(tmp_path, LABEL_MAP, [("odd", samples[1][1], small)])
    split = Split.load(tmp_path, "target_val")
    with pytest.raises(InputError, match=r"\(odd\).*\(5, 6\).*\(140, 90\)"):
        evaluate_masks(segmenter(), split, Settings(), tmp_path / "out")


def test_other_label_map_is_refused(split, tmp_path):
    content = LABEL_MAP.to_dict()
    content["labels"][0]["name"] = "pink"
    other = Segmenter(ColorNetwork(), LabelMap.from_dict(content))
    with pytest.raises(InputError, match="label map"):
        evaluate_masks(other, split, Settings(), tmp_path / "out")


def test_split_without_masks_is_refused(tmp_path, samples):
    write_split(tmp_path, LABEL_MAP, [("a", samples[0][1], None)])
    with pytest.raises(InputError, match="no record has a mask"):
        evaluate_masks(segmenter(), Split.load(tmp_path, "target_val"), Settings(), tmp_path / "out")


def test_published_rows_have_the_printed_means(voc20_coco60):
    for method, row in published.PER_CLASS.items():
        assert list(row) == ["background", *voc20_coco60.names("target")]
        assert np.mean(list(row.values())) == pytest.approx(published.MEANS[method], abs=0.06)


def test_table_stands_beside_the_paper_only_where_comparable(voc20_coco60):
    names = ["background", *voc20_coco60.names("target")]
    metrics = {
        "iou": dict.fromkeys(names, 0.25) | {"tvmonitor": None},
        "miou": 0.25,
        "classes_counted": 20,
        "pixel_accuracy": 0.9,
        "images": 3,
    }
    beside = format_metrics(metrics, "voc20_coco60", "target")
    assert "TransferNet-GT" in beside
    assert "68.5" in beside
    assert "(1 classes)" in beside
    assert "TransferNet" not in format_metrics(metrics, "voc20_coco60", "source")
    assert "TransferNet" not in format_metrics(metrics, "mine", "target")


@pytest.fixture
def model_dir(tmp_path):
    keras.utils.set_random_seed(0)
    directory = ModelDir(tmp_path / "model", "transfernet", TWO_BLOCKS, LABEL_MAP)
    save_model_dir(directory, build_transfernet(TWO_BLOCKS), build_classifier(TWO_BLOCKS))
    return directory


@pytest.fixture
def run_command(capsys):
    def runner(*words, code=0):
        assert tfseg.evaluate.main(words) == code, capsys.readouterr().err
        return capsys.readouterr()

    return runner


def test_command_on_a_split_without_masks_names_the_way_to_measure_it(
    tmp_path, samples, model_dir, run_command
):
    write_split(tmp_path / "data", LABEL_MAP, [("a", samples[0][1], None)])
    shutil.rmtree(model_dir.path / "joint")  # It is told before a network is loaded.
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}"]
    assert "has no masks, so that IoU cannot be measured; --method=labels" in run_command(*words, code=2).err


def test_command(split, model_dir, tmp_path, run_command):
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}"]
    out = run_command(*words, "--save_comp6").out
    path = model_dir.path / "evaluation/target_val-predicted-none/metrics.json"
    metrics = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert f"{100 * metrics['miou']:.1f}" in out
    assert metrics["command"].startswith("python -m tfseg.evaluate --model_dir=")
    assert metrics["versions"]["tensorflow"]
    assert set(metrics["weights"]) >= {"model.json", "joint/ckpt-0.index"}
    assert metrics["flags"]["split"] == "target_val"
    assert metrics["flags"]["crf_iterations"] is None
    assert len(list(path.parent.glob("results/VOC2012/Segmentation/comp6_val_cls/*.png"))) == 4


def test_command_with_attention(split, model_dir, tmp_path, run_command):
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}"]
    run_command(*words, "--method=attention", "--labels=ground_truth")
    path = model_dir.path / "evaluation/target_val-ground_truth-attention/metrics.json"
    assert json.loads(path.read_text())["attention_thresholds"]["densified"]


def test_command_with_crf_in_processes(split, model_dir, tmp_path, run_command):
    pytest.importorskip("pydensecrf")
    run_command(
        f"--model_dir={model_dir.path}",
        f"--data_dir={tmp_path / 'data'}",
        "--crf=official",
        "--crf_processes=2",
        f"--output_dir={tmp_path / 'out'}",
    )
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["crf"] == "official"


def test_fingerprint_follows_the_weights(model_dir):
    before = model_dir.fingerprint()
    assert model_dir.fingerprint() == before
    model = build_transfernet(model_dir.config)
    save_model_dir(model_dir, model)
    assert model_dir.fingerprint() != before


def test_command_refuses_an_unknown_split(split, model_dir, tmp_path, run_command):
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}"]
    stderr = run_command(*words, "--split=target_vla", code=2).err
    assert "finished are: target_val" in stderr
    assert "Traceback" not in stderr


def _save(model_dir, number, seed):
    """Writes weights as ckpt-`number` of stage joint and returns their network."""
    keras.utils.set_random_seed(seed)
    model = build_transfernet(model_dir.config)
    checkpoint = tf.train.Checkpoint(model=model)
    manager = tf.train.CheckpointManager(checkpoint, model_dir.path / "joint", max_to_keep=None)
    manager.save(checkpoint_number=number)
    return model


def _iou_of(model, split, tmp_path):
    segmenter = Segmenter(KerasNetwork(model), LABEL_MAP)
    settings = Settings(labels="ground_truth")
    return evaluate_masks(segmenter, split, settings, tmp_path / f"alone-{id(model)}")["iou"]


def test_resumed_evaluation_is_that_of_the_weights_that_are_loaded(split, model_dir, tmp_path, run_command):
    """TensorFlow's list of checkpoints names old weights, or none; an export lies in the folder."""
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}", "--labels=ground_truth"]
    path = model_dir.path / "evaluation/target_val-ground_truth-none/metrics.json"
    listed = (model_dir.path / "joint/checkpoint").read_text()
    run_command(*words)
    export = model_dir.path / "1"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"an export")
    seen = [json.loads(path.read_text())["weights"]]
    for number, state in ((5, listed), (6, None), (7, "")):
        model = _save(model_dir, number, seed=number)
        (model_dir.path / "joint/checkpoint").unlink(missing_ok=True)
        if state is not None:
            (model_dir.path / "joint/checkpoint").write_text(state)
        run_command(*words)
        metrics = json.loads(path.read_text())
        assert metrics["iou"] == pytest.approx(_iou_of(model, split, tmp_path))
        assert f"joint/ckpt-{number}.index" in metrics["weights"]
        assert metrics["weights"] == model_dir.fingerprint() and metrics["weights"] not in seen
        seen.append(metrics["weights"])


def test_an_older_checkpoint_can_be_chosen(split, model_dir, tmp_path, run_command):
    words = [f"--model_dir={model_dir.path}", f"--data_dir={tmp_path / 'data'}", "--labels=ground_truth"]
    chosen, _ = _save(model_dir, 5, seed=5), _save(model_dir, 6, seed=6)
    run_command(*words, "--checkpoint=5")
    folder = model_dir.path / "evaluation/target_val-ground_truth-none-checkpoint=5"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["iou"] == pytest.approx(_iou_of(chosen, split, tmp_path))
    assert "joint/ckpt-5.index" in metrics["weights"]
    said = run_command(*words, "--checkpoint=4", code=2).err
    assert "holds no checkpoint 4; it has 0, 5, 6" in said


def test_each_way_to_evaluate_has_a_folder_of_its_own(model_dir):
    """All flags that change the result are part of the default folder's name."""
    changes = ["", "--labels=ground_truth", "--method=attention", "--crf=official", "--crf_iterations=3"]
    changes += ["--label_threshold=0.5", "--label_threshold=0.4", "--classifier_stage=encoder"]
    changes += ["--bgr_mean=inference", "--background_factor=1", "--checkpoint=3", "--label_domain=all"]
    changes += ["--method=labels", "--method=labels --classifier_stage=encoder"]
    changes += ["--method=labels --label_threshold=0.5"]
    folders = {}
    for change in changes:
        argv = ["--data_dir=d", f"--model_dir={model_dir.path}", *change.split()]
        options = cli.parse(tfseg.evaluate.EvaluationOptions, argv)
        folders.setdefault(tfseg.evaluate._output_dir(options, model_dir), []).append(change)
    assert len(folders) == len(changes), folders
    # Flags without effect on the result change nothing.
    argv = ["--data_dir=d", f"--model_dir={model_dir.path}", "--batch_size=3", "--crf_processes=9"]
    options = cli.parse(tfseg.evaluate.EvaluationOptions, argv)
    assert tfseg.evaluate._output_dir(options, model_dir).name == "target_val-predicted-none"


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_crf_processes_need_no_tensorflow(command):
    """Each CRF process imports the command's module: it must stay free of it."""
    code = f"import tfseg.{command}, tfseg.inference.crf, sys; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
