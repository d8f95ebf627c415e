"""Reproduces table 1 of the paper on any dataset."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import cli
from tfseg.errors import InputError
from tfseg.evaluation import published
from tfseg.files import write_atomic
from tfseg.inference.crf import MODES
from tfseg.paper import tables
from tfseg.paper.plan import METHODS, SOME_FAILED, ExperimentOptions, Plan, from_encoder, weights_of
from tfseg.paper.runner import Job, Runner

ATTENTION_ROW = "Attention-GT, thresholded"
"""The control: the best of all thresholds of both maps."""
EXAMPLES = (
    "--data_dir=runs/demo/records --output_dir=runs/table1",
    "--data_dir=DIR --output_dir=DIR --recipes=tfseg:paper --seeds=1 --methods=transfernet --crf=none",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Options(ExperimentOptions):
    """Which runs make the table; each field is a flag."""

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
    from tfseg.data.records import Split

    jobs, expected = make_jobs(Plan.make(options), rows, seeds)
    split = Split.load_index(options.data_dir, options.split)
    comparable = split.label_map.name == published.LABEL_MAP and split.domain == "target"
    runner = Runner(output_dir, jobs)
    whole = runner.run()
    measured = tables.read_measured(expected, runner.products())
    command = cli.command_line("tfseg.experiments.table1", options)
    print(write_tables(output_dir, rows, measured, command, runner.summary(), comparable))
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
        start = plan.shared_stages(shared, seed, ("encoder", "classifier"))
        jobs += start.values()
        for model in dict.fromkeys(row.model for row in rows):
            folder = f"seed{seed}/{model}"
            plan.share_classifier(folder, shared)
            attention = plan.train("attention", folder, seed, model=model, **from_encoder(start, shared))
            joint = plan.train("joint", folder, seed, model=model, after=[attention])
            jobs += [attention, joint]
            for row in rows:
                if row.model == model:
                    after = weights_of(joint, start, row.labels)
                    jobs.append(plan.evaluate(folder, row.labels, row.method, row.crf, after))
                    expected.append((row.name, seed, jobs[-1].product))
    return jobs, expected


def write_tables(
    output_dir: Path,
    rows: Sequence[Row],
    measured: Sequence[tables.Measured],
    command: str,
    summary: Sequence[dict],
    comparable: bool,
) -> str:
    """Writes table1.csv, .md, .png, runs.csv and runs.json from what was measured.

    Args:
        output_dir: Where.
        rows: Of the table.
        measured: From `tables.read_measured`.
        command: What a person typed.
        summary: From `Runner.summary`.
        comparable: Whether the paper's numbers are of the same classes and images; if not, those of the
            classes of the same name stand in rows of their own, marked as of other data.

    Returns:
        The main table, Markdown.
    """
    from tfseg.paper.plots import draw_rows

    spreads = {row.name: tables.spread_of(measured, row.name) for row in rows}
    theirs = published.MEANS if comparable else {}
    head = ["method", "n", "mIoU mean", "mIoU std", "paper, percent"]
    lines = [[name, s.n, s.mean, s.std, theirs.get(name, "")] for name, s in spreads.items()]
    tables.write_csv(output_dir / "table1.csv", head, lines)
    tables.write_runs(output_dir, measured, "seed", summary)
    head = ["method", "mIoU, percent", "n"] + (["paper, percent"] if theirs else [])
    lines = [
        [name, s.percent(), s.n, *([theirs.get(name, "")] if theirs else [])] for name, s in spreads.items()
    ]
    main_table = tables.markdown_table(head, lines)
    seeds = ", ".join(str(seed) for seed in sorted({one.run for one in measured}))
    text = [
        main_table,
        f"Mean ± sample standard deviation over n seeds ({seeds}). +CRF: the CRF that the row names.\n",
        class_table(measured, rows, comparable),
        attention_text(measured),
        tables.markdown_runs(command, summary),
    ]
    write_atomic(output_dir / "table1.md", "\n".join(text).encode())
    write_atomic(output_dir / "table1.png", draw_rows(spreads, "mIoU, percent"))
    return main_table


def class_table(measured: Sequence[tables.Measured], rows: Sequence[Row], comparable: bool) -> str:
    """Returns IoU by class, ours and, where classes have the names of VOC's, the paper's; Markdown."""
    classes = list(measured[0].metrics["iou"]) if measured else []
    lines = [
        [
            row.name,
            *(tables.spread_of(measured, row.name, name).percent() for name in classes),
            tables.spread_of(measured, row.name).percent(),
        ]
        for row in rows
    ]
    head = ["IoU, percent", *classes, "mean"]
    common = [name for name in classes if name in published.PER_CLASS["TransferNet"]]
    if not set(common) - {"background"}:
        return tables.markdown_table(head, lines)
    mark = "paper, VOC 2012 val" if comparable else "paper, other data, other trunk"
    for method, by_class in published.PER_CLASS.items():
        mean = sum(by_class[name] for name in common) / len(common)
        cells = [f"{by_class[name]:.1f}" if name in common else "" for name in classes]
        lines.append([f"{method} ({mark})", *cells, f"{mean:.1f}"])
    note = (
        "\nThe paper's rows are of VOC 2012 val with 21 classes, other training data and an ImageNet trunk: "
        "for orientation alone. Their mean is over the classes shown.\n"
    )
    return tables.markdown_table(head, lines) + ("" if comparable else note)


def attention_text(measured: Sequence[tables.Measured]) -> str:
    """Returns where the attention of the control lies and which thresholds were the best; Markdown."""
    own = [one for one in measured if one.row == ATTENTION_ROW]
    if not own:
        return ""
    best = ", ".join(f"{one.metrics.get('best_threshold')} (seed {one.run})" for one in own)
    shares = [one.metrics.get("attention_shares", {}) for one in own]
    said = [
        f"{text} {tables.Spread.of([share[name] for share in shares]).percent()} %"
        for name, text in (
            ("inside", "on the object"),
            ("border", "on the outermost positions"),
            ("uniform_border", "there if it were uniform"),
        )
        if all(share.get(name) is not None for share in shares)
    ]
    return f"Best thresholds of the control: {best}. Attention: {', '.join(said) or 'not measured'}.\n"


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
