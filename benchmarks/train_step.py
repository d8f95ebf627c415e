"""Times an update of the joint stage against its floor, PyTorch, and another source tree.

The floor is an update's convolutions run alone, and the bytes that Adam must move. Trees and floor are
measured in turn, round after round, so that their ratios hold although the machine's speed drifts; where
others use the machine at the same time, the processors' time says more than the clock's. PyTorch, eager and
compiled, runs the same update (`torch_transfernet.py`) in .venv-torch, if that is there.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from benchmarks import timing
from tfseg import cli

NAMES = (
    "preset", "image_size", "batch_size", "micro_batch_size", "dtype_policy", "jit_compile", "threads",
)  # fmt: skip
"""What the processes that measure are told."""
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
    threads: int = cli.flag("Threads of each process; 0: one a processor.", default=0, lower=0)
    torch: bool = cli.flag("Time PyTorch, too.", default=True)
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
    print_results(options, results)
    timing.write(options.output, options, results)


def measure(options: BenchmarkOptions) -> dict[str, dict]:
    """Times all trees, PyTorch and the floor in turn.

    Returns:
        `{"tfseg" | "before" | "PyTorch" | "PyTorch, compiled" | "floor": {"wall_s" and "cpu_s": spreads, "of
        floor": both as shares of the floor, and but for the floor "peak_gb", "start_s", "start" and
        "losses"}}`; the start lasts to the end of the first update.
    """
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(start()) for name, start in _starts(options).items()}
        updates = {name: functools.partial(worker.ask, "update") for name, worker in workers.items()}
        taken = timing.in_turn(updates, options.rounds, warm_up=0)
        # Afterwards, for its arrays would count among the peaks.
        floor = functools.partial(workers["tfseg"].ask, "floor")
        taken |= timing.in_turn({"floor": floor}, options.rounds)
    results = {}
    for name, entries in taken.items():
        results[name] = timing.times(entries) | {"of floor": timing.ratios(entries, taken["floor"])}
        if name in workers:
            ready = workers[name].ready
            results[name] |= {
                "peak_gb": entries[-1]["peak_gb"],
                "start_s": workers[name].start_s,
                "start": ready["start"],
                "losses": [ready["loss"], *(entry["value"] for entry in entries)],
            }
    return results


def _starts(options: BenchmarkOptions) -> dict[str, Callable[[], timing.Worker]]:
    arguments = {name: getattr(options, name) for name in NAMES}
    starts = {}
    for name, tree in (("tfseg", timing.ROOT), ("before", options.against)):
        if tree is not None:
            starts[name] = functools.partial(
                timing.Worker, "train_step_worker.py", arguments, tree=tree.resolve()
            )
    python = timing.peer("torch") if options.torch else None
    if python is not None:
        for name, compiled in (("PyTorch", False), ("PyTorch, compiled", True)):
            more = arguments | {"compiled": compiled}
            starts[name] = functools.partial(timing.Worker, "torch_train_step.py", more, python)
    return starts


def print_results(options: BenchmarkOptions, results: dict[str, dict]) -> None:
    """Prints times of an update, as shares of the floor, peak memory and what the start took."""
    size = f"{options.image_size}x{options.image_size}" if options.image_size else "the preset's size"
    print(
        f"joint stage, {options.preset}, {size}, {options.batch_size} pairs, micro-batches of "
        f"{options.micro_batch_size or options.batch_size // 2}, {options.dtype_policy}"
    )
    rows = []
    for name, row in results.items():
        cells = [
            text
            for unit in timing.UNITS
            for text in (timing.shown(row[unit]), f"{timing.shown(row['of floor'][unit])}x")
        ]
        started = [f"{row['peak_gb']:.2f}", f"{row['start_s']:.1f}"] if name != "floor" else ["-", "-"]
        rows.append([name, *cells, *started])
    timing.print_table(
        ["", "clock, s", "of floor", "processors, s", "of floor", "peak, GB", "start, s"], rows
    )
    for name, row in results.items():
        if name != "floor":
            parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in row["start"].items())
            print(f"start of {name}, s: {parts}")


if __name__ == "__main__":
    sys.exit(main())
