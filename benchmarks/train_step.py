"""Times an update of the joint stage against its floor, and against another source tree.

The floor is an update's convolutions run alone, and the bytes that Adam must move. Trees and floor are
measured in turn, round after round, so that their ratios hold although the machine's speed drifts; where
others use the machine at the same time, the processors' time says more than the clock's.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from tfseg import cli
from tfseg.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("train_step_worker.py")
EXAMPLES = (
    "--preset=official --image_size=160 --batch_size=16 --micro_batch_size=4",
    "--preset=official --image_size=160 --batch_size=16 --against=../before --output=train_step.json",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    preset: Literal["official", "paper", "tiny"] = cli.flag("Shape of the network.", default="official")
    image_size: int = cli.flag("Side of the image; 0: the preset's.", default=160, lower=0)
    batch_size: int = cli.flag("Pairs of an update.", default=16, lower=2)
    micro_batch_size: int = cli.flag("Pairs computed at once; 0: all of a domain.", default=0, lower=0)
    dtype_policy: Literal["float32", "mixed_bfloat16"] = cli.flag("Precision.", default="float32")
    jit_compile: bool = cli.flag("Compile the micro-batch by XLA.", default=False)
    rounds: int = cli.flag("Timed updates; the median counts.", default=3, lower=1)
    against: Path | None = cli.flag(
        "Checkout of another version, timed in turn with this one.", default=None, exists="folder"
    )
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.train_step", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    results = measure(options)
    print_table(options, results)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


class _Worker:
    """A process of `train_step_worker.py` on one source tree."""

    def __init__(self, tree: Path, options: BenchmarkOptions) -> None:
        names = ("preset", "image_size", "batch_size", "micro_batch_size", "dtype_policy", "jit_compile")
        words = json.dumps({name: getattr(options, name) for name in names})
        environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), words],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started = time.perf_counter()
        self.first_loss = self._answer()["loss"]
        self.start_s = time.perf_counter() - started

    def ask(self, what: str) -> dict[str, float]:
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the process that measures ended with status {self._process.wait()}")
        return json.loads(line)


def measure(options: BenchmarkOptions) -> dict[str, dict]:
    """Times all trees and the floor in turn.

    Returns:
        `{"here" | "before" | "floor": {"wall_s" and "cpu_s": {"median", "low", "high"}, "peak_gb", "start_s",
        "losses"}}`, the last three not for the floor; the start lasts to the end of the first update.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, tree in (("here", ROOT), ("before", options.against)):
            if tree is not None:
                workers[name] = _Worker(tree.resolve(), options)
                stack.callback(workers[name].close)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*workers, "floor")}
        for _ in range(options.rounds):
            for name, worker in workers.items():
                measured[name].append(worker.ask("update"))
        # Afterwards, for its arrays would count among the peaks.
        workers["here"].ask("floor")  # Traces its convolutions.
        for _ in range(options.rounds):
            measured["floor"].append(workers["here"].ask("floor"))
    results = {}
    for name, rounds in measured.items():
        results[name] = {unit: _spread([entry[unit] for entry in rounds]) for unit in ("wall_s", "cpu_s")}
        if name in workers:
            results[name] |= {
                "peak_gb": rounds[-1]["peak_gb"],
                "start_s": workers[name].start_s,
                "losses": [workers[name].first_loss, *(entry["value"] for entry in rounds)],
            }
    return results


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def print_table(options: BenchmarkOptions, results: dict[str, dict]) -> None:
    """Prints times of an update, as ratios to the floor, and peak memory."""
    size = f"{options.image_size}x{options.image_size}" if options.image_size else "the preset's size"
    print(
        f"joint stage, {options.preset}, {size}, {options.batch_size} pairs, micro-batches of "
        f"{options.micro_batch_size or options.batch_size // 2}, {options.dtype_policy}"
    )
    print(f"{'':8}{'clock, s':>22}{'of floor':>10}{'processors, s':>24}{'of floor':>10}{'peak, GB':>10}")
    for name, row in results.items():
        cells = []
        for unit, width in (("wall_s", 22), ("cpu_s", 24)):
            spread, floor = row[unit], results["floor"][unit]["median"]
            text = f"{spread['median']:.2f} ({spread['low']:.2f}-{spread['high']:.2f})"
            cells.append(f"{text:>{width}}{spread['median'] / floor:>9.2f}x")
        peak = f"{row['peak_gb']:>10.2f}" if "peak_gb" in row else f"{'-':>10}"
        print(f"{name:8}{''.join(cells)}{peak}")


if __name__ == "__main__":
    sys.exit(main())
