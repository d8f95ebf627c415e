import csv
import io
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfseg import cli
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluate import EvaluationOptions
from tfseg.evaluation import published
from tfseg.paper import figure4, table1, tables
from tfseg.paper.figure4 import Figure4Options
from tfseg.paper.plan import METHODS, Plan
from tfseg.paper.table1 import Table1Options
from tfseg.paper.tables import Spread
from tfseg.training.options import TrainingOptions

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "configs/experiments/synthetic"


def options(kind, data, output, recipes=RECIPES, **changes):
    return kind(data_dir=str(data), output_dir=str(output), recipes=str(recipes), **changes)


def parse(module, jobs):
    """Reads planned command lines with the flags of the command that they start."""
    options_class = {"tfseg.train": TrainingOptions, "tfseg.evaluate": EvaluationOptions}[module]
    return [cli.parse(options_class, job.argv[2:]) for job in jobs if job.argv[1] == module]


def check_order(jobs):
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for position, job in enumerate(jobs):
        assert set(job.after) <= set(names[:position])


def test_table1_trains_shared_stages_once_a_seed(synthetic_records, tmp_path):
    plan = Plan.make(options(Table1Options, synthetic_records, tmp_path))
    rows = table1.make_rows(list(METHODS), ["transfernet", "baselinenet"], ["none", "official"])
    jobs, expected = table1.make_jobs(plan, rows, [1, 2])
    assert [row.name for row in rows] == [
        "TransferNet", "TransferNet+CRF", "TransferNet-GT", "TransferNet-GT+CRF",
        "DecoupledNet", "DecoupledNet+CRF",
        "BaselineNet", "BaselineNet+CRF", "BaselineNet-GT", "BaselineNet-GT+CRF",
        "Attention-GT, thresholded",
    ]  # fmt: skip
    check_order(jobs)
    trained = parse("tfseg.train", jobs)
    assert len(trained) == 2 * (2 + 2 * len(METHODS))
    for seed in (1, 2):
        own = [t for t in trained if t.seed == seed]
        shared = f"{tmp_path}/runs/seed{seed}/shared"
        assert [t.stage for t in own if str(t.model_dir) == shared] == ["encoder", "classifier"]
        for method in METHODS:
            stages = {t.stage: t for t in own if t.model == method and str(t.model_dir) != shared}
            assert list(stages) == ["attention", "joint"]
            assert str(stages["attention"].init_dir) == shared
            assert stages["joint"].init_dir is None  # goes on from its own attention
    evaluated = parse("tfseg.evaluate", jobs)
    assert len(evaluated) == len(expected) == 2 * len(rows)
    assert len({e.output_dir for e in evaluated}) == len(evaluated)
    link = tmp_path / "runs/seed2/baselinenet/classifier"
    assert link.resolve() == (tmp_path / "runs/seed2/shared/classifier").resolve()


def test_jobs_depend_on_the_weights_that_they_read(synthetic_records, tmp_path):
    plan = Plan.make(options(Table1Options, synthetic_records, tmp_path))
    rows = table1.make_rows(["transfernet"], ["transfernet"], ["none"])
    jobs, _ = table1.make_jobs(plan, rows, [1])
    assert {job.name: job.after for job in jobs} == {
        "seed1/shared/encoder": (),
        "seed1/shared/classifier": ("seed1/shared/encoder",),
        "seed1/transfernet/attention": ("seed1/shared/encoder",),
        "seed1/transfernet/joint": ("seed1/transfernet/attention",),
        "seed1/transfernet/predicted-none": ("seed1/transfernet/joint", "seed1/shared/classifier"),
        "seed1/transfernet/ground_truth-none": ("seed1/transfernet/joint",),
        "seed1/transfernet/ground_truth-attention": ("seed1/transfernet/joint",),
    }
    # The network's description goes with the first stage of a folder; another image size can follow.
    describing = {job.name for job in jobs if any(path.name == "model.json" for path in job.writes)}
    assert describing == {"seed1/shared/encoder", "seed1/transfernet/attention"}


def test_encoder_weights_go_to_the_stages_that_have_no_earlier_one(synthetic_records, tmp_path):
    given = {"encoder_weights": "trunk.npz"}
    plan = Plan.make(options(Table1Options, synthetic_records, tmp_path, **given))
    rows = table1.make_rows(["transfernet"], [], ["none"])

    def stages(plan):
        trained = parse("tfseg.train", table1.make_jobs(plan, rows, [1])[0])
        return [t.stage for t in trained if str(t.encoder_weights) == "trunk.npz"]

    assert stages(plan) == ["encoder"]
    shutil.copytree(RECIPES, tmp_path / "recipes")
    (tmp_path / "recipes/encoder.cfg").unlink()
    without = options(Table1Options, synthetic_records, tmp_path, tmp_path / "recipes", **given)
    assert stages(Plan.make(without)) == ["classifier", "attention"]


@pytest.mark.parametrize("start", ["joint", "attention"])
def test_figure4_shares_everything_but_the_subsets(synthetic_records, tmp_path, start):
    plan = Plan.make(options(Figure4Options, synthetic_records, tmp_path))
    percents = figure4.parse_percents(["1", "50", "100"])
    jobs, expected = figure4.make_jobs(plan, percents, 3, 1, start, ["predicted"], "none")
    check_order(jobs)
    trained = parse("tfseg.train", jobs)
    shared = [t for t in trained if t.source_fraction == 1 and t.subset_seed == 0]
    stages = ["encoder", "classifier"] + (["attention"] if start == "joint" else [])
    assert [t.stage for t in shared] == stages
    joint = [t for t in trained if t.stage == "joint"]
    expected_subsets = [(f, k) for f in (0.01, 0.5, 1.0) for k in (1, 2, 3)]
    assert [(t.source_fraction, t.subset_seed) for t in joint] == expected_subsets
    assert len(expected) == 9
    if start == "attention":
        cut = [t for t in trained if t.stage == "attention"]
        assert [(t.source_fraction, t.subset_seed) for t in cut] == expected_subsets
    else:
        assert {str(t.init_dir) for t in joint} == {f"{tmp_path}/runs/shared"}


def test_recipe_of_one_model_goes_first_and_a_missing_one_is_named(synthetic_records, tmp_path):
    recipes = tmp_path / "recipes"
    shutil.copytree(RECIPES, recipes)
    (recipes / "joint-decouplednet.cfg").write_text("--preset=tiny\n")
    (recipes / "encoder.cfg").unlink()
    plan = Plan.make(options(Table1Options, synthetic_records, tmp_path, recipes))
    assert plan.recipes.require("joint", "decouplednet").name == "joint-decouplednet.cfg"
    assert plan.recipes.require("joint", "transfernet").name == "joint.cfg"
    assert list(plan.shared_stages("s", 1, ("encoder", "classifier"))) == ["classifier"]
    (recipes / "attention.cfg").unlink()
    with pytest.raises(InputError, match=r"holds neither attention\.cfg nor attention-transfernet\.cfg"):
        plan.train("attention", "a", 1)
    with pytest.raises(InputError, match=r"no split 'val'; finished are: source_train"):
        Plan.make(options(Table1Options, synthetic_records, tmp_path, split="val"))


def test_spread_is_that_of_a_sample():
    values = [0.5, 0.25, 0.375]
    assert Spread.of(values) == Spread(3, statistics.fmean(values), statistics.stdev(values))
    assert Spread.of(values).percent() == "37.5 ± 12.5"
    assert Spread.of([0.5]).percent() == "50.0"
    assert Spread.of([]).percent() == "-"
    assert np.isnan(Spread.of([0.5]).std)


SUMMARY = [
    {"name": "a", "command": "python -m a", "seconds": 90.0, "error": None},
    {"name": "b", "command": "python -m b", "seconds": None, "error": "status 1: fell"},
]


def write_metrics(path, miou, **iou):
    metrics = {"miou": miou, "iou": iou, "labels": "predicted", "method": "decoder", "split": "v"}
    path.write_text(json.dumps({**metrics, "command": "c", "weights": {}, "pixel_accuracy": 0.5}))


def test_table1_holds_what_was_measured(tmp_path):
    rows = table1.make_rows(["transfernet", "baselinenet"], [], ["none"])
    write_metrics(tmp_path / "transfernet-1.json", 0.5, background=0.9, dog=0.1)
    write_metrics(tmp_path / "transfernet-2.json", 0.6, background=0.8, dog=None)
    write_metrics(tmp_path / "baselinenet-2.json", 0.25, background=0.7, dog=0.2)
    write_metrics(tmp_path / "baselinenet-1.json", 0.99, background=0.99, dog=0.99)
    expected = [(r.name, k, tmp_path / f"{r.model}-{k}.json") for r in rows[:2] for k in (1, 2)]
    finished = {tmp_path / f"{name}.json" for name in ("transfernet-1", "transfernet-2", "baselinenet-2")}
    measured = tables.read_measured(expected, finished)  # baselinenet-1 is of an earlier run
    text = table1.write_tables(tmp_path, rows, measured, "python -m table1", SUMMARY, comparable=True)
    lines = [line for line in text.splitlines() if line.startswith("| T") or line.startswith("| B")]
    assert lines == [
        f"| TransferNet | 55.0 ± 7.1 | 2 | {published.MEANS['TransferNet']} |",
        f"| BaselineNet | 25.0 | 1 | {published.MEANS['BaselineNet']} |",
    ]
    assert "| Attention-GT, thresholded | - | 0 |  |" in text
    table = list(csv.reader(io.StringIO((tmp_path / "table1.csv").read_text())))
    assert table[1][0] == "TransferNet"
    np.testing.assert_allclose([float(x) for x in table[1][1:4]], [2, 0.55, np.std([0.5, 0.6], ddof=1)])
    runs = list(csv.reader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert runs[0][:6] == ["row", "seed", "miou", "pixel_accuracy", "background", "dog"]
    assert [run[:3] for run in runs[1:]] == [
        ["TransferNet", "1", "0.5"], ["TransferNet", "2", "0.6"], ["BaselineNet", "2", "0.25"]
    ]  # fmt: skip
    assert runs[2][5] == ""
    markdown = (tmp_path / "table1.md").read_text()
    assert text in markdown
    assert "| TransferNet | 85.0 ± 7.1 | 10.0 | 55.0 ± 7.1 |" in markdown
    assert "| BaselineNet (paper, VOC 2012 val) | 81.4 | 55.2 | 68.3 |" in markdown
    assert "Made by `python -m table1`: 1 of 2 runs, 90 s in all." in markdown
    assert "- not finished: b: status 1: fell" in markdown
    with Image.open(tmp_path / "table1.png") as picture:
        assert np.array(picture).std() > 10


@pytest.mark.parametrize("names", [("cat", "cow"), ("disk", "ring")])
def test_classes_of_other_data_stand_beside_the_paper_by_name(tmp_path, names):
    write_metrics(tmp_path / "a.json", 0.5, background=0.9, **dict.fromkeys(names, 0.25))
    rows = table1.make_rows(["transfernet"], [], ["none"])
    measured = tables.read_measured([(rows[0].name, 1, tmp_path / "a.json")], {tmp_path / "a.json"})
    text = table1.write_tables(tmp_path, rows, measured, "c", SUMMARY, comparable=False)
    markdown = (tmp_path / "table1.md").read_text()
    assert "paper" not in text
    theirs = "| TransferNet-GT (paper, other data, other trunk) | 85.2 | 73.3 | 81.5 | 80.0 |"
    assert (theirs in markdown) == ("cat" in names)
    assert ("paper" in markdown) == ("cat" in names)


def test_table_says_where_the_attention_lies(tmp_path):
    shares = {"inside": 0.5, "border": 0.25, "uniform_border": 0.36}
    for k in (1, 2):
        write_metrics(tmp_path / f"{k}.json", 0.4, background=0.9)
        metrics = json.loads((tmp_path / f"{k}.json").read_text())
        shares["inside"] = k / 4
        metrics |= {"best_threshold": f"densified@0.{k}", "attention_shares": shares}
        (tmp_path / f"{k}.json").write_text(json.dumps(metrics))
    paths = [tmp_path / f"{k}.json" for k in (1, 2)]
    measured = tables.read_measured([(table1.ATTENTION_ROW, k + 1, p) for k, p in enumerate(paths)], paths)
    said = table1.attention_text(measured)
    assert "densified@0.1 (seed 1), densified@0.2 (seed 2)" in said
    assert "on the object 37.5 ± 17.7 %, on the outermost positions 25.0 ± 0.0 %" in said


def micro_recipes(folder):
    folder.mkdir()
    for stage, weights in (("encoder", "none"), ("classifier", "finetuned"), ("attention", "finetuned")):
        text = f"--preset=tiny\n--image_size=48\n--encoder_weights={weights}\n--steps=2\n--batch_size=4\n"
        (folder / f"{stage}.cfg").write_text(text)
    (folder / "joint.cfg").write_text("--preset=tiny\n--image_size=48\n--steps=2\n--batch_size=4\n")
    return folder


def test_figure4_runs_resumes_and_tabulates(synthetic_records, tmp_path, capsys):
    recipes = micro_recipes(tmp_path / "recipes")
    words = [f"--data_dir={synthetic_records}", f"--output_dir={tmp_path / 'out'}", f"--recipes={recipes}"]
    words += ["--percent=25", "--subsets=1", "--labels=ground_truth"]
    assert figure4.main(words) == 0, capsys.readouterr()
    assert "[5/5] percent25-subset1/ground_truth-none" in capsys.readouterr().out
    out = tmp_path / "out"
    path = out / "runs/percent25-subset1/evaluation/ground_truth-none/metrics.json"
    miou = json.loads(path.read_text())["miou"]
    run = json.loads((out / "runs/percent25-subset1/joint/run.json").read_text())
    labelled = sum(bool(info.labels) for info in Split.load(synthetic_records, "source_train").infos)
    assert run["data"]["source"]["images"] == round(0.25 * labelled)
    table = list(csv.reader(io.StringIO((out / "figure4.csv").read_text())))
    assert table[1] == ["25.0", str(round(0.25 * labelled)), "ground_truth", "1", str(miou), "nan"]
    assert f"python -m tfseg.experiments.figure4 {words[0]}" in (out / "figure4.md").read_text()
    assert Image.open(out / "figure4.png").size[0] == 1500
    # Only what is missing is done again, and gives the same.
    path.unlink()
    assert figure4.main(words) == 0
    assert "5 runs, 4 of them finished before" in capsys.readouterr().out
    assert json.loads(path.read_text())["miou"] == miou


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("table1", ["--methods=fcn"], "--methods=fcn: allowed are transfernet, decouplednet, baselinenet"),
        ("table1", ["--seeds=1,1"], "--seeds=1,1: must be different whole numbers"),
        ("figure4", ["--percent=0,50"], "--percent=0,50: must be different numbers above 0"),
        ("figure4", ["--recipes=nowhere"], "--recipes=nowhere: holds neither classifier.cfg"),
    ],
)
def test_wrong_words(synthetic_records, tmp_path, capsys, module, words, said):
    words = [f"--data_dir={synthetic_records}", f"--output_dir={tmp_path / 'out'}", *words]
    assert {"table1": table1, "figure4": figure4}[module].main(words) == 2
    assert said in capsys.readouterr().err
