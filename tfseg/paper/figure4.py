"""Reproduces figure 4 of the paper, mIoU over the share of source images."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.paper import tables
from tfseg.paper.plan import SOME_FAILED, ExperimentOptions, Plan, from_encoder, weights_of
from tfseg.paper.runner import Job, Runner

SHARED = "shared"
TITLES = {"predicted": "TransferNet", "ground_truth": "TransferNet-GT"}
EXAMPLES = (
    "--data_dir=runs/demo/records --output_dir=runs/figure4",
    "--data_dir=DIR --output_dir=DIR --recipes=tfseg:paper --percent=1,100 --subsets=3",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure4Options(ExperimentOptions):
    """Which runs make the figure; each field is a flag."""

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
    jobs, expected = make_jobs(
        Plan.make(options),
        percents,
        options.subsets,
        options.seed,
        options.subset_from,
        options.labels,
        options.crf,
    )
    runner = Runner(output_dir, jobs)
    whole = runner.run()
    measured = tables.read_measured(expected, runner.products())
    command = cli.command_line("tfseg.experiments.figure4", options)
    print(write_tables(output_dir, percents, options.labels, measured, command, runner.summary()))
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
    start = plan.shared_stages(SHARED, seed, stages)
    jobs, expected = list(start.values()), []
    for percent in percents:
        for subset in range(1, subsets + 1):
            folder = f"percent{percent:g}-subset{subset}"
            plan.share_classifier(folder, SHARED)
            chosen = (f"--source_fraction={percent / 100:g}", f"--subset_seed={subset}")
            if subset_from == "attention":
                origin = from_encoder(start, SHARED)
                jobs.append(plan.train("attention", folder, subset, flags=chosen, **origin))
                last = plan.train("joint", folder, subset, after=jobs[-1:], flags=chosen)
            else:
                origin = {"init": SHARED, "after": [start["attention"]]}
                last = plan.train("joint", folder, subset, flags=chosen, **origin)
            jobs.append(last)
            for kind in labels:
                jobs.append(plan.evaluate(folder, kind, "decoder", crf, weights_of(last, start, kind)))
                expected.append((row_name(kind, percent), subset, jobs[-1].product))
    return jobs, expected


def write_tables(
    output_dir: Path,
    percents: Sequence[float],
    labels: Sequence[str],
    measured: Sequence[tables.Measured],
    command: str,
    summary: Sequence[dict],
) -> str:
    """Writes figure4.csv, .md, .png, runs.csv and runs.json from what was measured.

    Returns:
        The main table, Markdown.
    """
    from tfseg.paper.plots import draw_curves

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
        shown.append([f"{percent:g} %", images[percent], *(s.percent() for s in cells), n])
    head = ["percent", "source images", "labels", "n", "mIoU mean", "mIoU std"]
    tables.write_csv(output_dir / "figure4.csv", head, lines)
    tables.write_runs(output_dir, measured, "subset", summary)
    head = ["source", "images", *(f"{TITLES[kind]}, mIoU percent" for kind in labels), "n"]
    table = tables.markdown_table(head, shown)
    text = [
        table,
        "Mean ± sample standard deviation over n subsets (at 100 %: over n orders of the same images).\n",
        tables.markdown_runs(command, summary),
    ]
    write_atomic(output_dir / "figure4.md", "\n".join(text).encode())
    picture = draw_curves(percents, curves, "source images with masks, percent", "mIoU, percent")
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
        if one.row in names:
            data = one.metrics.get("training", {}).get("joint", {}).get("data", {})
            return data.get("source", {}).get("images", "")
    return ""


if __name__ == "__main__":
    sys.exit(main())
