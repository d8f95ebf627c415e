"""docs/segmenter.ipynb: its cells run in order, and what it shows was made by such a run."""

import ast
import base64
import contextlib
import io
import json
from pathlib import Path

import pytest
from color_network import draw
from PIL import Image
from trained_model import write_model_dir

from tfseg.data.labels import Label, LabelMap

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/segmenter.ipynb"
LABELS = LabelMap(
    "labels",
    (Label(1, "star", "source"), *(Label(i, name, "target") for i, name in enumerate(("fish", "crown"), 2))),
)


@pytest.fixture(scope="module")
def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def run(source, names):
    """Runs a cell; returns what it printed and the value of its last line."""
    body, value, printed = ast.parse(source), None, io.StringIO()
    last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(body, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), value


def test_the_cells_run_in_order(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model_dir(Path("own/model"), LABELS)
    images = Path("drawn/folders/test/images")
    images.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(draw(60 + 5 * number, 80)[0]).save(images / f"{number}.png")
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(self))
    names = {}
    for cell in cells:
        pictures = len(shown)
        printed, value = run("".join(cell["source"]), names)
        stored = cell["outputs"]
        assert bool(printed) == any(one["output_type"] == "stream" for one in stored)
        assert (value is not None) == any(one["output_type"] == "execute_result" for one in stored)
        is_picture = hasattr(value, "_repr_png_") or len(shown) > pictures
        assert is_picture == any("image/png" in one.get("data", {}) for one in stored)
    assert Path("mask.png").is_file() and Path("overlay.png").is_file()


def test_it_was_executed_whole_and_is_small(cells):
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    # Nothing of a log, an error or a path of somebody's machine.
    assert {one.get("name", "stdout") for one in outputs} == {"stdout"}
    assert {one["output_type"] for one in outputs} <= {"stream", "execute_result", "display_data"}
    text = NOTEBOOK.read_text()
    assert len(text) < 500_000 and "/home" not in text and "/tmp" not in text
    for one in outputs:
        if "image/png" in one.get("data", {}):
            Image.open(io.BytesIO(base64.b64decode(one["data"]["image/png"]))).load()
