"""Reproduces table 1 of the paper on any dataset."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import cli
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluation import paper
from tfseg.experiments import plots, tables
from tfseg.experiments.plan import METHODS, Plan
from tfseg.experiments.runner import Job, Runner
from tfseg.files import write_atomic
from tfseg.inference.crf import MODES

SOME_FAILED = 1
"""Exit status when a run failed; the tables then hold all others."""
ATTENTION_ROW = "Attention-GT, thresholded"
"""The control: the best of all thresholds of both maps."""

EXAMPLES = (
    "--data_dir=runs/demo/records --output_dir=runs/table1",
    "--data_dir=DIR --output_dir=DIR --recipes=configs/paper --seeds=1 --methods=transfernet --crf=none",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Options:
    """Which runs make the table; each field is a flag."""

    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    output_dir: str = cli.flag("Takes runs/, jobs/ and the tables.")
    recipes: str = cli.flag("Folder of flagfiles, STAGE[-MODEL].cfg.", default="configs/demo")
    split: str = cli.flag("Records to evaluate; they need masks.", default="target_val")
    seeds: tuple[str, ...] = cli.flag(
        "Seeds; each trains all methods anew.", default=("1", "2", "3"), separator=","
    )
    methods: tuple[str, ...] = cli.flag(
        f"Some of {', '.join(METHODS)}.", default=tuple(METHODS), separator=","
    )
    gt_methods: tuple[str, ...] = cli.flag(
        "Methods that get a row with ground-truth labels, too.", default=("transfernet",), separator=","
    )
    crf: tuple[str, ...] = cli.flag(
        f"Modes of the CRF, a row each: some of {', '.join(MODES)}.",
        default=("none", "official"),
        separator=",",
    )


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: As the paper calls it.
        model: Of `METHODS`.
        labels: `predicted` or `ground_truth`.
        method: `decoder` or `attention`.
        crf: A mode of the CRF.
    """

    name: str
    model: str
    labels: str
    method: str
    crf: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns `SOME_FAILED` if a run failed."""
    return cli.run("tfseg.experiments.table1", __doc__, Table1Options, _run, argv, EXAMPLES)


def _run(options: Table1Options) -> int:
    output_dir = Path(options.output_dir)
    seeds = parse_numbers("seeds", options.seeds)
    rows = make_rows(options.methods, options.gt_methods, options.crf)
    plan = Plan.make(options.data_dir, options.split, options.recipes, options.output_dir)
    jobs, expected = make_jobs(plan, rows, seeds)
    runner = Runner(output_dir, jobs)
    whole = runner.run()
    command = cli.command_line("tfseg.experiments.table1", options)
    split = Split.load_index(options.data_dir, options.split)
    comparable = split.label_map.name == paper.LABEL_MAP and split.domain == "target"
    text = write_tables(output_dir, rows, expected, command, runner.summary(), comparable)
    print(text)
    print(output_dir / "table1.md")
    return 0 if whole else SOME_FAILED


def make_rows(methods: Sequence[str], gt_methods: Sequence[str], crfs: Sequence[str]) -> list[Row]:
    """Returns the rows in the order of the table, the control last.

    Raises:
        InputError: If a method or a mode of the CRF is unknown.
    """
    for flag, given, allowed in (
        ("methods", methods, METHODS),
        ("gt_methods", gt_methods, METHODS),
        ("crf", crfs, MODES),
    ):
        strange = [word for word in given if word not in allowed]
        if strange or (not given and flag != "gt_methods"):
            raise InputError(f"--{flag}={','.join(given)}: allowed are {', '.join(allowed)}")
    rows = []
    for model in methods:
        for labels in ("predicted", "ground_truth"):
            if labels == "ground_truth" and model not in gt_methods:
                continue
            name = METHODS[model] + ("-GT" if labels == "ground_truth" else "")
            rows += [Row(name + _crf_suffix(crf), model, labels, "decoder", crf) for crf in crfs]
    if "transfernet" in methods:
        rows.append(Row(ATTENTION_ROW, "transfernet", "ground_truth", "attention", "none"))
    return rows


def make_jobs(
    plan: Plan, rows: Sequence[Row], seeds: Sequence[int]
) -> tuple[list[Job], list[tuple[str, int, Path]]]:
    """Returns all jobs, seed by seed, and (row, seed, metrics.json) of what they measure.

    Encoder and classifier of a seed are trained once, for all methods.
    """
    jobs, expected = [], []
    for seed in seeds:
        shared = f"seed{seed}/shared"
        jobs += plan.shared_stages(shared, seed, ("encoder", "classifier"))
        start = tuple(job.name for job in jobs if job.name.startswith(f"{shared}/"))
        for model in dict.fromkeys(row.model for row in rows):
            folder = f"seed{seed}/{model}"
            plan.share_classifier(folder, shared)
            attention = plan.train("attention", folder, seed, model=model, init=shared, after=start)
            joint = plan.train("joint", folder, seed, model=model, after=(attention.name,))
            jobs += [attention, joint]
            for row in rows:
                if row.model == model:
                    job, metrics = plan.evaluate(folder, row.labels, row.method, row.crf, (joint.name,))
                    jobs.append(job)
                    expected.append((row.name, seed, metrics))
    return jobs, expected


def write_tables(
    output_dir: Path,
    rows: Sequence[Row],
    expected: Sequence[tuple[str, int, Path]],
    command: str,
    summary: Sequence[dict],
    comparable: bool,
) -> str:
    """Writes table1.csv, .md, .png, runs.csv and runs.json from the metrics that are there.

    Args:
        output_dir: Where.
        rows: Of the table.
        expected: From `make_jobs`.
        command: What a person typed.
        summary: From `Runner.summary`.
        comparable: Whether the paper's numbers may stand beside ours.

    Returns:
        The main table, Markdown.
    """
    measured = tables.read_measured(expected)
    spreads = {row.name: tables.spread_of(measured, row.name) for row in rows}
    theirs = paper.MEANS if comparable else {}
    head = ["method", "n", "mIoU mean", "mIoU std", "paper, percent"]
    lines = [[name, s.n, s.mean, s.std, theirs.get(name, "")] for name, s in spreads.items()]
    tables.write_csv(output_dir / "table1.csv", head, lines)
    tables.write_runs(output_dir / "runs.csv", measured, "seed")
    write_atomic(output_dir / "runs.json", (json.dumps(summary, indent=2) + "\n").encode())

    head = ["method", "mIoU, percent", "n"] + (["paper, percent"] if theirs else [])
    lines = [
        [name, s.percent(), str(s.n), *([str(theirs.get(name, ""))] if theirs else [])]
        for name, s in spreads.items()
    ]
    main_table = tables.markdown_table(head, lines)
    seeds = ", ".join(str(seed) for seed in sorted({seed for _, seed, _ in expected}))
    text = [
        main_table,
        f"Mean ± sample standard deviation over n seeds ({seeds}). +CRF: the CRF that the row names.\n",
        _class_table(measured, rows),
        tables.markdown_runs(command, summary),
    ]
    write_atomic(output_dir / "table1.md", "\n".join(text).encode())
    write_atomic(output_dir / "table1.png", plots.draw_rows(spreads, "mIoU, percent"))
    return main_table


def _class_table(measured: Sequence[tables.Measured], rows: Sequence[Row]) -> str:
    classes = list(measured[0].metrics["iou"]) if measured else []
    lines = [
        [row.name, *(tables.spread_of(measured, row.name, name).percent() for name in classes)]
        for row in rows
    ]
    return tables.markdown_table(["IoU, percent", *classes], lines)


def parse_numbers(flag: str, words: Sequence[str]) -> list[int]:
    """Turns the words of a list flag into different numbers from 0.

    Raises:
        InputError: If a word is no number or stands twice.
    """
    if not words or len(set(words)) < len(words) or not all(word.isdecimal() for word in words):
        raise InputError(f"--{flag}={','.join(words)}: must be different whole numbers, as in 1,2,3")
    return [int(word) for word in words]


def _crf_suffix(crf: str) -> str:
    return {"none": "", "official": "+CRF"}.get(crf, f"+CRF ({crf})")


if __name__ == "__main__":
    sys.exit(main())
