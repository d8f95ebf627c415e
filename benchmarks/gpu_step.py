"""Times the official update on a GPU: Keras on JAX against PyTorch, in float32 (TF32) and bfloat16.

Needs a Python with JAX and Keras, and one with PyTorch, both for the same GPU (--jax_python, --torch_python);
TensorFlow is not needed. Both run in turn. It runs on a CPU as well, to try it.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks import timing
from tfseg import cli

EXAMPLES = (
    "--batch_size=32 --output=gpu_step.json",
    "--preset=tiny --image_size=96 --batch_size=4 --torch_python=.venv-torch/bin/python",
)
POLICIES = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    preset: Literal["official", "paper", "tiny"] = cli.flag("Shape of the network.", default="official")
    image_size: int = cli.flag("Side of the image; 0: the preset's.", default=320, lower=0)
    batch_size: int = cli.flag("Pairs of an update, computed at once.", default=32, lower=2)
    updates: int = cli.flag("Updates that are timed at once.", default=10, lower=1)
    rounds: int = cli.flag("Timed rounds; the median counts.", default=5, lower=1)
    jax_python: Path = cli.flag("Python with JAX and Keras.", default=Path(sys.executable), exists="file")
    torch_python: Path | None = cli.flag(
        "Python with PyTorch; without it, PyTorch is left out.", default=None, exists="file"
    )
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.gpu_step", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    results = {policy: measure(options, policy) for policy in POLICIES}
    rows = [
        [
            f"{policy}, {name}",
            timing.shown(row["pairs_per_s"], 1),
            f"{timing.shown(row['of JAX'])}x",
            f"{row['start_s']:.0f}",
        ]
        for policy, ways in results.items()
        for name, row in ways.items()
    ]
    devices = {row["device"] for ways in results.values() for row in ways.values()}
    head = f"{options.preset}, {options.batch_size} pairs, {', '.join(sorted(devices))}"
    timing.print_table([head, "pairs/s", "time", "start, s"], rows)
    timing.write(options.output, options, results)


def measure(options: BenchmarkOptions, policy: str) -> dict[str, dict]:
    """Times updates in turn.

    Returns:
        `{"JAX" | "PyTorch" | "PyTorch, compiled": {"wall_s" and "cpu_s" of an update, "pairs_per_s", "of
        JAX": spreads, "device", "start_s": to the end of the first update, "losses"}}`.
    """
    names = ("preset", "image_size", "batch_size", "updates")
    arguments = {name: getattr(options, name) for name in names} | {"dtype_policy": policy}
    starts = {"JAX": ("jax_train_step.py", options.jax_python, arguments)}
    if options.torch_python is not None:
        more = arguments | {"micro_batch_size": 0, "threads": 0, "device": "cuda"}
        for name, compiled in (("PyTorch", False), ("PyTorch, compiled", True)):
            starts[name] = "torch_train_step.py", options.torch_python, more | {"compiled": compiled}
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(timing.Worker(script, told, python.absolute()))
            for name, (script, python, told) in starts.items()
        }
        updates = {name: functools.partial(worker.ask, "updates") for name, worker in workers.items()}
        taken = timing.per(timing.in_turn(updates, options.rounds), options.updates)
    results = {}
    for name, entries in taken.items():
        results[name] = timing.times(entries) | {
            "pairs_per_s": timing.spread([options.batch_size / entry["wall_s"] for entry in entries]),
            "of JAX": timing.ratios(entries, taken["JAX"])["wall_s"],
            "device": workers[name].ready["device"],
            "start_s": workers[name].start_s,
            "losses": [workers[name].ready["loss"], *(entry["value"] for entry in entries)],
        }
    return results


if __name__ == "__main__":
    sys.exit(main())
