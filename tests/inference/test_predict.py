import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from color_network import LABEL_MAP, draw
from PIL import Image
from small_networks import TWO_BLOCKS

import tfseg.predict
from tfseg.data.voc_colors import palette
from tfseg.errors import InputError
from tfseg.inference.files import named_files, output_names
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import build_classifier, build_transfernet


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.jpeg", "deep/notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.fromarray(draw(40, 60)[0]).save(path)
    return tmp_path / "in"


def names(words):
    return [path.name for path in named_files(words)]


def test_folders_globs_and_files(folder):
    assert names([str(folder)]) == ["a.JPG", "b.png", "c.jpeg"]
    assert names([f"{folder}/*.png"]) == ["b.png"]
    assert names([f"{folder}/**/*.jp*g"]) == ["c.jpeg"]
    assert names([f"{folder}/deep/notes.txt", f"{folder}/b.png"]) == ["notes.txt", "b.png"]


def test_hidden_files_are_taken_only_if_they_are_named(folder):
    for name in ("._b.png", ".hidden/d.png", "__MACOSX/deep/c.jpeg", "deep/.c.jpeg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    assert names([str(folder)]) == ["a.JPG", "b.png", "c.jpeg"]
    assert names([f"{folder}/._b.png"]) == ["._b.png"]
    # The folder itself may be hidden.
    folder.rename(folder.with_name(".in"))
    assert names([str(folder.with_name(".in"))]) == ["a.JPG", "b.png", "c.jpeg"]


def test_words_that_name_nothing_fail_later_as_images(folder):
    assert names([f"{folder}/*.gif", f"{folder}/none.png"]) == ["*.gif", "none.png"]


def test_a_file_whose_name_looks_like_a_glob(folder):
    (folder / "b.png").rename(folder / "b[1].png")
    assert names([f"{folder}/b[1].png"]) == ["b[1].png"]


def test_folder_without_images(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        names([str(tmp_path)])


def test_equal_stems_get_numbers():
    files = [Path("x/a.png"), Path("y/a.png"), Path("a-2.png"), Path("a.jpg")]
    assert output_names(files) == ["a", "a-2", "a-2-2", "a-3"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    keras.utils.set_random_seed(0)
    directory = ModelDir(tmp_path_factory.mktemp("model"), "transfernet", TWO_BLOCKS, LABEL_MAP)
    save_model_dir(directory, build_transfernet(TWO_BLOCKS), build_classifier(TWO_BLOCKS))
    return directory.path


@pytest.fixture
def predict(capsys):
    def runner(model_dir, output_dir, *words):
        status = tfseg.predict.main([f"--model_dir={model_dir}", f"--output_dir={output_dir}", *words])
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return runner


def test_goes_on_past_unreadable_files(model_dir, folder, tmp_path, predict):
    words = ["--label=red", "--label=yellow", folder, folder / "deep/notes.txt"]
    done = predict(model_dir, tmp_path / "out", *words)
    assert done.status == 1, done.err
    assert "3 of 4 images segmented, 1 could not be read" in done.out
    assert "notes.txt" in done.err
    assert "Traceback" not in done.err
    for name in ("a", "b", "c"):
        with Image.open(tmp_path / "out/masks" / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (60, 40))
            assert set(np.unique(np.array(mask))) <= {0, 1, 4}
            np.testing.assert_array_equal(np.reshape(mask.getpalette(), (-1, 3))[4], palette()[4])
        assert (tmp_path / "out/overlays" / f"{name}.png").is_file()
        assert (tmp_path / "out/attention" / f"{name}.png").is_file()
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [set(entry) >= {"error"} for entry in report] == [False, False, False, True]
    assert set(report[0]["pixels"]) == {"red", "yellow"}


def test_predicted_labels(model_dir, folder, tmp_path, predict):
    done = predict(model_dir, tmp_path / "out", "--noattention", folder / "b.png")
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert report[0]["label_probabilities"].keys() <= {"red", "green", "blue"}
    assert not (tmp_path / "out/attention").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no image given"),
        (["--classifier_stage=encoder", "{folder}"], "no classifier that could predict them"),
        (["--label=pinkish", "{folder}"], "label 'pinkish' is not in colors"),
        (["--labels=red", "{folder}"], "Unknown command line flag 'labels'"),
    ],
)
def test_wrong_words_are_one_line(model_dir, folder, tmp_path, predict, words, reason):
    done = predict(model_dir, tmp_path / "out", *(w.format(folder=folder) for w in words))
    assert done.status == 2
    assert reason in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_was_segmented(model_dir, folder, tmp_path, predict, monkeypatch):
    """The pictures of two images are written when the third is interrupted: so is their description."""
    written = []

    def write(options, output_dir, name, result):
        written.append(name)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(tfseg.predict, "_write", write)
    done = predict(model_dir, tmp_path / "out", "--label=red", folder)
    assert done.status == 130 and "interrupted" in done.err
    report = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["name"] for entry in report] == ["a", "b"]


def test_label_ids_outside_the_map_are_told(model_dir, folder, tmp_path, predict):
    for label in ("0", "5", "300"):
        done = predict(model_dir, tmp_path / "out", f"--label={label}", folder)
        assert done.status == 2 and "ids 1 to 4" in done.err and label in done.err
