import json
import socket
import subprocess
import sys

import numpy as np
import pytest
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from fake_server import FakeServing
from PIL import Image
from small_networks import TWO_BLOCKS

from export.rest import RestModel
from export.saved_model import export_model
from tfseg.data.voc_colors import palette
from tfseg.errors import InputError
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir
from tfseg.models import build_transfernet


def call(*words):
    command = [sys.executable, "-m", "export.client", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def served():
    fake = FakeServing(ColorNetwork(96, 12))
    with fake.running() as url:
        fake.url = url
        yield fake


@pytest.fixture
def photograph(tmp_path):
    image, mask = draw(90, 140)
    Image.fromarray(image).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png", mask


def test_served_model_gives_an_aligned_mask(served, photograph, tmp_path):
    path, truth = photograph
    (tmp_path / "labels.json").write_text(json.dumps(LABEL_MAP.to_dict()))
    output = tmp_path / "mask.png"
    words = ["--label=crimson", "--label=2", f"--label_map={tmp_path / 'labels.json'}", f"--output={output}"]
    result = call(f"--url={served.url}/", f"--image={path}", *words)
    assert result.returncode == 0, result.stderr
    assert "red: " in result.stdout
    with Image.open(output) as picture:
        np.testing.assert_array_equal(np.reshape(picture.getpalette(), (-1, 3))[:3], palette()[:3])
        mask = np.array(picture)
    assert mask.shape == truth.shape
    assert set(np.unique(mask)) == {0, 1, 2}
    for label in (1, 2):
        assert iou(truth == label, mask == label) > 0.9
    assert len(served.requests) == 1


def test_server_and_segmenter_agree(served, photograph, tmp_path):
    path, _ = photograph
    result = call(f"--url={served.url}", f"--image={path}", "--label=3", f"--output={tmp_path / 'm.png'}")
    assert result.returncode == 0, result.stderr
    expected = Segmenter(ColorNetwork(96, 12), LABEL_MAP).segment(path, 3).label_map
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "m.png")), expected)


def test_a_client_of_a_server_needs_no_tensorflow():
    code = "import sys, export.client; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_saved_model_on_disk(photograph, tmp_path):
    path, _ = photograph
    directory = ModelDir(tmp_path / "model", "transfernet", TWO_BLOCKS, LABEL_MAP)
    model = build_transfernet(TWO_BLOCKS)
    export_model(directory, model, None, tmp_path / "export" / "3")
    output = tmp_path / "mask.png"
    # No background at all: an untrained network would else find nothing.
    words = ["--label=green", f"--output={output}", "--background_factor=0.9"]
    result = call(f"--model={tmp_path / 'export'}", f"--image={path}", *words)
    assert result.returncode == 0, result.stderr
    segmenter = Segmenter(KerasNetwork(model), LABEL_MAP, background_factor=0.9)
    found = np.array(Image.open(output))
    assert (found == segmenter.segment(path, "green").label_map).mean() > 0.999

    result = call(f"--model={tmp_path / 'export'}", f"--image={path}", "--label=gren", f"--output={output}")
    assert result.returncode == 2
    assert "did you mean green?" in result.stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, {"error": "Tensor image:0 has wrong shape"}), "answers 400: Tensor image:0 has wrong shape"),
        ((503, b"<html>busy</html>"), "answers 503: Service Unavailable"),
        ((200, b"<html>hello</html>"), "no JSON"),
        ((200, [1, 2]), "no JSON object"),
        ((200, {"outputs": [[1.0, 0.0]]}), r"answered shape \[1, 2\]"),
        ((200, {"outputs": [[1.0], [1.0, 0.0]]}), "answered shape"),
        ((200, {"predictions": []}), "answered shape"),
        ((200, {"outputs": np.full((1, 96, 96), np.nan).tolist()}), "finite"),
    ],
)
def test_what_a_server_may_say_instead(served, answer, said):
    model = RestModel(served.url, timeout=5)
    served.answer = answer
    with pytest.raises(InputError, match=said):
        model.probabilities(np.zeros((96, 96, 3), np.uint8), (1,))


def test_named_output_is_taken_too(served):
    model = RestModel(served.url, timeout=5)
    served.answer = 200, {"outputs": {"probability": np.full((1, 96, 96), 0.25).tolist()}}
    assert (model.probabilities(np.zeros((96, 96, 3), np.uint8), (1,)) == 0.25).all()


def test_server_that_keeps_silent_is_given_up(served):
    model = RestModel(served.url, timeout=0.2)
    served.delay = 1.0
    with pytest.raises(InputError, match=r"no answer within 0\.2 seconds"):
        model.probabilities(np.zeros((96, 96, 3), np.uint8), (1,))


def test_other_models_are_refused(served):
    with pytest.raises(InputError, match="answers 404: Servable not found"):
        RestModel(served.url.replace("tfseg", "other"), timeout=5)
    served.metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"].pop("label")
    with pytest.raises(InputError, match="does not take image"):
        RestModel(served.url, timeout=5)


def test_nobody_there(photograph, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/models/tfseg"
    result = call(f"--url={url}", f"--image={photograph[0]}", "--label=1", f"--output={tmp_path / 'm.png'}")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "cannot be reached" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of --model and --url"),
        (["--model=a", "--url=http://b"], "give one of --model and --url"),
        (["--url=ftp://host/x"], "must start with http"),
        (["--url=http://localhost:1", "--label=dog"], "does not tell names"),
        (["--model={tmp}"], "holds no SavedModel"),
    ],
)
def test_wrong_words(photograph, tmp_path, words, said):
    words = [word.format(tmp=tmp_path) for word in words]
    result = call(*words, f"--image={photograph[0]}", "--label=1", f"--output={tmp_path / 'm.png'}")
    assert result.returncode == 2
    assert said in result.stderr
