"""Means and spreads over repeated runs, as CSV, Markdown and for plots."""

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tfseg.cli import format_seconds
from tfseg.files import write_atomic
from tfseg.paper.results import read_metrics


@dataclasses.dataclass(frozen=True)
class Measured:
    """One evaluation of one run.

    Attributes:
        row: Row of the table.
        run: Which of the row's repetitions, a seed or the number of a subset.
        path: Its `metrics.json`.
        metrics: The content.
    """

    row: str
    run: int
    path: Path
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repetitions of one number.

    Attributes:
        n: How many.
        mean: Their mean; NaN without any.
        std: Their sample standard deviation (n - 1); NaN below two.
    """

    n: int
    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarises values."""
        mean = statistics.fmean(values) if values else float("nan")
        return cls(len(values), mean, statistics.stdev(values) if len(values) > 1 else float("nan"))

    def percent(self) -> str:
        """Writes shares of 0 to 1 in percent: `51.2 +- 0.8`, or the mean alone, or `-`."""
        if not self.n:
            return "-"
        spread = f" ± {100 * self.std:.1f}" if self.n > 1 else ""
        return f"{100 * self.mean:.1f}{spread}"


def read_measured(expected: Sequence[tuple[str, int, Path]], products: Collection[Path]) -> list[Measured]:
    """Reads those of the expected (row, run, metrics.json) that are finished.

    Args:
        expected: What an experiment measures.
        products: From `Runner.products`; other files are of earlier runs.
    """
    return [Measured(row, run, path, read_metrics(path)) for row, run, path in expected if path in products]


def spread_of(measured: Sequence[Measured], row: str, name: str | None = None) -> Spread:
    """Summarises a row: its mIoU, or the IoU of the class `name` where that is known."""
    own = [one.metrics for one in measured if one.row == row]
    values = [m["miou"] if name is None else m["iou"].get(name) for m in own]
    return Spread.of([value for value in values if value is not None])


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a table as CSV, whole or not at all; numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def write_runs(
    output_dir: Path, measured: Sequence[Measured], run_name: str, summary: Sequence[dict[str, Any]]
) -> None:
    """Writes runs.csv, a line a run with mIoU, pixel accuracy and the IoU of each class, and runs.json."""
    classes = list(measured[0].metrics["iou"]) if measured else []
    head = ["row", run_name, "miou", "pixel_accuracy", *classes, "metrics"]
    rows = []
    for one in measured:
        m = one.metrics
        ious = [m["iou"].get(name) for name in classes]
        rows.append([one.row, one.run, m["miou"], m.get("pixel_accuracy"), *ious, one.path])
    write_csv(output_dir / "runs.csv", head, rows)
    write_atomic(output_dir / "runs.json", (json.dumps(summary, indent=2) + "\n").encode())


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; all columns but the first are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def markdown_runs(command: str, summary: Sequence[dict[str, Any]]) -> str:
    """Returns what a result was made by: the command, the time, what failed, and every run."""
    seconds = [job["seconds"] for job in summary if job["seconds"] is not None]
    missing = [job for job in summary if job["seconds"] is None]
    lines = [
        f"Made by `{command}`: {len(seconds)} of {len(summary)} runs, {format_seconds(sum(seconds))} in all."
    ]
    lines += [f"- not finished: {job['name']}: {job['error'] or 'not run'}" for job in missing]
    lines += ["", "<details><summary>Every run</summary>", "", "```"]
    for job in summary:
        lines.append(f"# {format_seconds(job['seconds'])}")
        lines.append(job["command"])
    return "\n".join([*lines, "```", "", "</details>", ""])
