"""Reproduces figure 4 of the paper, mIoU over the share of source images."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.experiments import plots, tables
from tfseg.experiments.plan import Plan
from tfseg.experiments.runner import Job, Runner
from tfseg.files import write_atomic

SOME_FAILED = 1
"""Exit status when a run failed; the tables then hold all others."""
SHARED = "shared"
TITLES = {"predicted": "TransferNet", "ground_truth": "TransferNet-GT"}

EXAMPLES = (
    "--data_dir=runs/demo/records --output_dir=runs/figure4",
    "--data_dir=DIR --output_dir=DIR --recipes=configs/paper --percent=1,100 --subsets=3",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure4Options:
    """Which runs make the figure; each field is a flag."""

    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    output_dir: str = cli.flag("Takes runs/, jobs/ and the tables.")
    recipes: str = cli.flag("Folder of flagfiles, STAGE.cfg.", default="configs/demo")
    split: str = cli.flag("Records to evaluate; they need masks.", default="target_val")
    percent: tuple[str, ...] = cli.flag(
        "Shares of the source images, in (0, 100].",
        default=("1", "5", "10", "25", "50", "100"),
        separator=",",
    )
    subsets: int = cli.flag(
        "Random subsets of each size; at 100 %, as many orders of all.", default=3, lower=1
    )
    seed: int = cli.flag("Seed of the stages that all runs share.", default=1, lower=0)
    subset_from: Literal["joint", "attention"] = cli.flag(
        "First stage that sees the subset alone: joint, as the paper's 15 runs of its second stage; or "
        "attention, so that the image labels of the left-out images are not used there either.",
        default="joint",
    )
    labels: tuple[str, ...] = cli.flag(
        "Labels to evaluate with, a curve each.", default=("predicted", "ground_truth"), separator=","
    )
    crf: Literal["none", "official", "symmetric"] = cli.flag("Mode of the CRF.", default="none")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns `SOME_FAILED` if a run failed."""
    return cli.run("tfseg.experiments.figure4", __doc__, Figure4Options, _run, argv, EXAMPLES)


def _run(options: Figure4Options) -> int:
    output_dir = Path(options.output_dir)
    percents = parse_percents(options.percent)
    strange = [word for word in options.labels if word not in TITLES]
    if strange or not options.labels:
        raise InputError(f"--labels={','.join(options.labels)}: allowed are {', '.join(TITLES)}")
    plan = Plan.make(options.data_dir, options.split, options.recipes, options.output_dir)
    jobs, expected = make_jobs(
        plan, percents, options.subsets, options.seed, options.subset_from, options.labels, options.crf
    )
    runner = Runner(output_dir, jobs)
    whole = runner.run()
    command = cli.command_line("tfseg.experiments.figure4", options)
    text = write_tables(output_dir, percents, options.labels, expected, command, runner.summary())
    print(text)
    print(output_dir / "figure4.md")
    return 0 if whole else SOME_FAILED


def make_jobs(
    plan: Plan,
    percents: Sequence[float],
    subsets: int,
    seed: int,
    subset_from: str,
    labels: Sequence[str],
    crf: str,
) -> tuple[list[Job], list[tuple[str, int, Path]]]:
    """Returns all jobs, and (row, subset, metrics.json) of what they measure.

    Subset k is drawn with `--subset_seed=k`, and its run shuffles with `--seed=k`: at 100 percent, where
    there is one set only, runs differ by that.
    """
    stages = ("encoder", "classifier") + (("attention",) if subset_from == "joint" else ())
    jobs = plan.shared_stages(SHARED, seed, stages)
    start = tuple(job.name for job in jobs)
    expected = []
    for percent in percents:
        for subset in range(1, subsets + 1):
            folder = f"percent{percent:g}-subset{subset}"
            plan.share_classifier(folder, SHARED)
            chosen = (f"--source_fraction={percent / 100:g}", f"--subset_seed={subset}")
            if subset_from == "attention":
                first = plan.train("attention", folder, subset, init=SHARED, after=start, flags=chosen)
                last = plan.train("joint", folder, subset, after=(first.name,), flags=chosen)
                jobs += [first, last]
            else:
                last = plan.train("joint", folder, subset, init=SHARED, after=start, flags=chosen)
                jobs.append(last)
            for kind in labels:
                job, metrics = plan.evaluate(folder, kind, "decoder", crf, (last.name,))
                jobs.append(job)
                expected.append((row_name(kind, percent), subset, metrics))
    return jobs, expected


def write_tables(
    output_dir: Path,
    percents: Sequence[float],
    labels: Sequence[str],
    expected: Sequence[tuple[str, int, Path]],
    command: str,
    summary: Sequence[dict],
) -> str:
    """Writes figure4.csv, .md, .png, runs.csv and runs.json from the metrics that are there.

    Returns:
        The main table, Markdown.
    """
    measured = tables.read_measured(expected)
    curves = {
        TITLES[kind]: [tables.spread_of(measured, row_name(kind, percent)) for percent in percents]
        for kind in labels
    }
    images = {percent: _source_images(measured, labels, percent) for percent in percents}
    lines, shown = [], []
    for index, percent in enumerate(percents):
        for kind in labels:
            s = curves[TITLES[kind]][index]
            lines.append([percent, images[percent], kind, s.n, s.mean, s.std])
        cells = [curves[TITLES[kind]][index] for kind in labels]
        n = "/".join(dict.fromkeys(str(s.n) for s in cells))
        shown.append([f"{percent:g} %", str(images[percent]), *(s.percent() for s in cells), n])
    head = ["percent", "source images", "labels", "n", "mIoU mean", "mIoU std"]
    tables.write_csv(output_dir / "figure4.csv", head, lines)
    tables.write_runs(output_dir / "runs.csv", measured, "subset")
    write_atomic(output_dir / "runs.json", (json.dumps(summary, indent=2) + "\n").encode())
    head = ["source", "images", *(f"{TITLES[kind]}, mIoU percent" for kind in labels), "n"]
    table = tables.markdown_table(head, shown)
    text = [
        table,
        "Mean ± sample standard deviation over n subsets (at 100 %: over n orders of the same images).\n",
        tables.markdown_runs(command, summary),
    ]
    write_atomic(output_dir / "figure4.md", "\n".join(text).encode())
    picture = plots.draw_curves(percents, curves, "source images with masks, percent", "mIoU, percent")
    write_atomic(output_dir / "figure4.png", picture)
    return table


def row_name(labels: str, percent: float) -> str:
    """Names the runs of one point of one curve."""
    return f"{TITLES[labels]} {percent:g} %"


def parse_percents(words: Sequence[str]) -> list[float]:
    """Turns the words of --percent into numbers, ascending.

    Raises:
        InputError: If a word is no number in (0, 100] or stands twice.
    """
    try:
        percents = sorted(float(word) for word in words)
    except ValueError:
        percents = []
    if not percents or len(set(percents)) < len(percents) or percents[0] <= 0 or percents[-1] > 100:
        raise InputError(f"--percent={','.join(words)}: must be different numbers above 0 and up to 100")
    return percents


def _source_images(measured: Sequence[tables.Measured], labels: Sequence[str], percent: float) -> int | str:
    """Returns how many source images a subset holds, as the training counted them; '' if unknown."""
    names = [row_name(kind, percent) for kind in labels]
    for one in measured:
        run = one.path.parents[2] / "joint" / "run.json"
        if one.row in names and run.exists():
            return json.loads(run.read_text())["data"]["source"]["images"]
    return ""


if __name__ == "__main__":
    sys.exit(main())
