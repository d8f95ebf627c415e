import base64
import contextlib
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
import tensorflow as tf
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image
from split_files import write_split
from trained_model import write_evaluations, write_export, write_model_dir

from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.inference.pictures import encode_png
from tfseg.inference.segmenter import Segmenter
from tfseg.paper import report
from tfseg.paper.examples import choose_pairs, find_examples, read_example
from tfseg.paper.plots import running_mean
from tfseg.paper.results import StageRun, read_evaluations, trained_seconds

# Names that would be markup if anything put them into the page as they are.
SCRIPT = "<script>alert(1)</script>"
HOSTILE_MAP = LabelMap(
    LABEL_MAP.name,
    tuple(dataclasses.replace(e, name=SCRIPT) if e.id == 3 else e for e in LABEL_MAP.labels),
)
NUMBERS = {"ground_truth": 0.51234, "predicted": 0.43217, "attention": 0.3019}
VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """Collects what a test wants to know, and that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.mious, self.cells, self.text = [], [], [], {}, [], []
        self.kind = None
        self.feed(text)
        assert self.open == []

    def words(self):
        return " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag in ("td", "th"):
            self.cells.append("")
        self.kind = attrs.get("data-kind", self.kind)
        if "data-miou" in attrs:
            self.mious[self.kind] = [float(attrs["data-miou"]), ""]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] == "b":
            self.mious[self.kind][1] = data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with model/, data/, evaluation/ and export/ as a finished run leaves them."""
    folder = tmp_path_factory.mktemp("finished")
    samples = [(f'image_{n}"<i>', *draw(60 + 10 * n, 100 - 10 * n)) for n in range(4)]
    write_split(folder / "data", HOSTILE_MAP, samples)
    directory, model, classifier = write_model_dir(folder / "model", HOSTILE_MAP)
    split = Split.load(folder / "data", "target_val")
    write_evaluations(folder / "evaluation", directory, split, NUMBERS)
    write_export(directory, model, classifier, folder / "export")
    (folder / "figure5.png").write_bytes(encode_png(draw(50, 90)[0], 300, "What <this> shows."))
    return folder


def write_report(folder, output, **changes):
    flags = {
        "model_dir": folder / "model",
        "data_dir": folder / "data",
        "split": "target_val",
        "evaluations": folder / "evaluation",
        "export_dir": folder / "export",
        "output": output,
        "figures": folder / "figure5.png",
        **changes,
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = report.main([f"--{name}={value}" for name, value in flags.items()])
    return status, said.getvalue()


@pytest.fixture(scope="module")
def page(finished):
    status, said = write_report(finished, finished / "report.html")
    assert status == 0, said
    assert "mIoU  51.2 %  ground_truth (seed 7)" in said
    assert "export: as the Keras model" in said
    assert not list(finished.glob(".report*"))
    return Page((finished / "report.html").read_text(encoding="utf-8"))


def decode(attrs):
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", attrs["src"]).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    assert image.format.lower() == kind
    return np.array(image.convert("RGB"))


def test_page_stands_alone(page, finished):
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"} == set()
    addresses = [value for _, a in page.tags for k, value in a.items() if k in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "://" not in (finished / "report.html").read_text()
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_every_image_decodes_and_says_what_it_is(page):
    shown = [a["alt"] for a in page.images]
    # 3 target labels, one image each, then a second one of the first label: 4 rows of 6, ...
    for start in ("input image_", "attention: ", "densified attention: ", "mask probability: "):
        assert sum(alt.startswith(start) for alt in shown) == 4, start
    assert shown.count("label map") == shown.count("ground truth") == 4
    assert {alt for alt in shown if alt.startswith("attention: ")} == {
        "attention: red", "attention: green", f"attention: {SCRIPT}"
    }  # fmt: skip
    assert "losses of stage joint" in shown
    assert "accuracies of stage joint" in shown
    for attrs in page.images:
        picture = decode(attrs)
        assert min(picture.shape[:2]) > 20
        # Random weights give grey probabilities; these are never of one colour:
        if attrs["alt"].startswith(("input", "ground truth", "attention", "losses", "accuracies")):
            assert picture.std() > 5, attrs["alt"]


def test_numbers_are_those_of_the_evaluations(page):
    assert {kind: value for kind, (value, _) in page.mious.items()} == NUMBERS
    assert [text for _, text in page.mious.values()] == ["51.2 %", "43.2 %", "30.2 %"]
    text = page.words()
    assert "+21.0 points" in text  # 51.234 - 30.19
    assert "densified@0.6" in text
    assert "python -m tfseg.evaluate --kind=predicted --x='<i>'" in text
    assert "precision 50.0, recall 25.0, exact set 12.5, mean AP -" in text
    row = page.cells.index("green")  # class 2 of background, red, green, blue
    assert page.cells[row + 1 : row + 4] == ["25.6", "21.6", "15.1"]
    row = page.cells.index("red")
    assert page.cells[row + 1 : row + 4] == ["-", "-", "-"]
    row = page.cells.index("mean (mIoU)")
    assert page.cells[row + 1 : row + 4] == ["51.2", "43.2", "30.2"]


def test_flags_versions_and_data_are_told(page):
    text = page.words()
    for said in ("--seed=7", "--note=<b>&", "tensorflow 2.21.0", "1,234,567 parameters", "sha256 ab12"):
        assert said in text
    assert page.cells.count("12 s") == 3  # 12.5 s each, to even


def test_example_row_is_aligned(finished):
    split = Split.load(finished / "data", "target_val")
    example = read_example(split, 1)
    segmenter = Segmenter(ColorNetwork(160, 20), LABEL_MAP)
    found = segmenter.segment(example.image, example.labels)
    row = report.example_pictures(example, found, 2, LABEL_MAP)
    pictures = {caption: decode({"src": source}).astype(int) for source, caption in row}
    assert len({picture.shape for picture in pictures.values()}) == 1
    height, width = pictures["ground truth"].shape[:2]
    truth = np.array(Image.fromarray(example.mask).resize((width, height), Image.Resampling.NEAREST))
    for name in ("ground truth", "label map"):
        # Green (VOC's colour of label 2) exceeds red and blue in the tint of label 2 alone.
        r, g, b = np.moveaxis(pictures[name], -1, 0)
        assert iou(truth == 2, (g > r + 30) & (g > b + 30)) > 0.85
    assert iou(truth == 2, pictures["mask probability: green"].mean(axis=-1) > 127) > 0.85
    for name in ("attention: green", "densified attention: green"):
        redness = pictures[name][..., 0] - pictures[name][..., 2]
        y, x = np.unravel_index(redness.argmax(), redness.shape)
        assert truth[y, x] == 2


def test_stale_or_missing_numbers_are_refused(finished, tmp_path):
    shutil.copytree(finished / "evaluation", tmp_path / "evaluation")
    path = tmp_path / "evaluation/predicted/metrics.json"
    whole = json.loads(path.read_text())

    def refused(said, **changes):
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(InputError, match=said):
            read_evaluations(tmp_path / "evaluation", finished / "model", "target_val")

    weights = whole["weights"]
    stale = {name: "0" if name.startswith("classifier/") else value for name, value in weights.items()}
    refused("other weights than", weights=stale)
    refused("labels='ground_truth', needed is 'predicted'", labels="ground_truth")
    refused("split='other'", split="other")
    path.write_text("{}")
    with pytest.raises(InputError, match="lacks "):
        read_evaluations(tmp_path / "evaluation", finished / "model", "target_val")
    # The classifier plays no part where labels are given.
    path.write_text(json.dumps(whole))
    given = tmp_path / "evaluation/ground_truth/metrics.json"
    given.write_text(json.dumps({**json.loads(given.read_text()), "weights": stale}))
    read_evaluations(tmp_path / "evaluation", finished / "model", "target_val")
    status, said = write_report(finished, tmp_path / "report.html", evaluations=tmp_path / "nothing")
    assert status == 2
    assert "nothing/ground_truth/metrics.json: No such file" in said
    assert not (tmp_path / "report.html").exists()


def test_export_of_other_weights_is_found_out(finished, tmp_path):
    image, _ = draw(50, 70)
    keras.utils.set_random_seed(3)
    write_model_dir(tmp_path / "model", HOSTILE_MAP)
    other = Segmenter.load(tmp_path / "model")
    check = report.check_export(finished / "export", other, image, 1)
    exported = Segmenter.load(finished / "export/1").segment(image, 1).probabilities
    expected = other.segment(image, 1).probabilities
    assert not check["passed"]
    assert check["difference"] == np.abs(exported - expected).max() > 1e-3
    with pytest.raises(InputError, match="holds no SavedModel"):
        report.check_export(finished / "data", other, image, 1)
    write_model_dir(tmp_path / "colors", LABEL_MAP)
    with pytest.raises(InputError, match="another label map"):
        report.check_export(finished / "export", Segmenter.load(tmp_path / "colors"), image, 1)


def test_page_marks_what_is_wrong(page, finished):
    assert (finished / "report.html").read_text().count('class="good"') == 2
    wrong = {"path": "p", "passed": False, "difference": 0.5, "tolerance": 1e-5, "pictures": []}
    values = dict.fromkeys(("title", "split", "seed", "made_on", "model_json"), "<x>")
    values |= dict.fromkeys(("notices", "examples", "figures", "per_class", "stages", "steps"), ())
    values |= {key: {} for key in ("evaluations", "card_titles", "kinds")}
    drawn = report.render(**values, gain=-1.0, sections=report.SECTIONS, label_quality=None, export=wrong)
    bad = [line for line in drawn.decode().splitlines() if 'class="bad"' in line]
    assert len(bad) == 2 and "-1.0 points" in bad[0] and "5.0e-01" in bad[1]
    assert b"other weights" in drawn and b"<x>" not in drawn


def test_contents_lead_to_the_sections(page):
    anchors = [a["href"] for tag, a in page.tags if tag == "a"]
    assert anchors == [f"#{a['id']}" for tag, a in page.tags if tag == "h2"]
    assert anchors == ["#results", "#examples", "#figures", "#iou", "#curves", "#export", "#making"]


def test_figures_are_shown_with_their_sentence(page):
    assert "What <this> shows." in page.words()
    assert "figure5" in [a["alt"] for a in page.images]


def test_a_shorter_training_is_noticed(page):
    (notice,) = [text for text in page.text if text.startswith("Stage joint was trained for 30 updates")]
    assert "its --steps asks for 50" in notice


def test_a_shorter_training_than_its_recipe_is_noticed(tmp_path):
    (tmp_path / "nested.cfg").write_text("--steps=800\n--batch_size=4\n")
    (tmp_path / "joint.cfg").write_text(f"# recipe\n--flagfile={tmp_path / 'nested.cfg'}\n")
    (tmp_path / "joint-baselinenet.cfg").write_text("--steps=900\n--steps=30\n")

    def said(steps, model="transfernet", recipes=tmp_path):
        stage = StageRun("joint", f"--steps={steps}\n", {}, [{"step": 30, "loss": 1.0}], None)
        return report.notices([stage], model, recipes)

    assert said(30, recipes=None) == []
    assert "trained for 30 updates; its --steps asks for 50" in said(50, recipes=None)[0]
    assert "trained for 30 updates; its recipe asks for 800" in said(30)[0]
    assert said(30, "baselinenet") == []


def test_pairs_are_chosen_in_turn_and_images_once(tmp_path):
    def sample(name, *labels):
        mask = np.zeros((8, 8), np.uint8)
        for row, label in enumerate(labels):
            mask[row] = label
        return name, np.zeros((8, 8, 3), np.uint8), mask

    samples = [sample("a", 1, 2), sample("b", 1), sample("c", 2, 3), sample("d", 3), sample("e", 2)]
    write_split(tmp_path, LABEL_MAP, [*samples, ("f", samples[0][1], None)])
    split = Split.load(tmp_path, "target_val")
    assert choose_pairs(split, 3) == [(0, 1), (2, 2), (3, 3)]
    assert choose_pairs(split, 9) == [(0, 1), (2, 2), (3, 3), (1, 1), (4, 2)]
    assert [example.name for example in find_examples(split, ["d", "a"])] == ["d", "a"]
    with pytest.raises(InputError, match=r"'g': is no file nor an id of split target_val \(a, b, c, "):
        find_examples(split, ["g"])


def test_time_is_added_over_resumptions_without_the_pause(tmp_path):
    from tensorboard.compat.proto.event_pb2 import Event

    for number, times in enumerate(([100.0, 130.0], [5000.0, 5010.5])):
        path = tmp_path / f"events.out.tfevents.{number}.host"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for time in times:
                writer.write(Event(wall_time=time).SerializeToString())
    assert trained_seconds(tmp_path) == pytest.approx(40.5)
    with open(path, "ab") as file:
        file.write(b"\x10\0\0")  # a killed run
    assert trained_seconds(tmp_path) == pytest.approx(40.5)
    assert trained_seconds(tmp_path / "nowhere") is None


def test_running_mean_is_that_of_a_window():
    values = np.random.default_rng(0).normal(size=50)
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(50)]
    np.testing.assert_allclose(running_mean(values, 3), expected)
    np.testing.assert_array_equal(running_mean(values, 0).round(9), values.round(9))
