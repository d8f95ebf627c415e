"""What all benchmarks share: what is compared runs in turn, round after round; medians, spread, JSON.

Machines drift and others use them, so that only ratios within one run mean something. They are taken round by
round. Where others work at the same time, the processors' time says more than the clock's. Peers that need
another environment, or memory of their own, are processes that answer requests (`serve` on their side,
`Worker` on ours); importing this module needs nothing but the standard library, so that each of those
environments can.
"""

import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
UNITS = ("wall_s", "cpu_s")
Name = TypeVar("Name", bound=Hashable)
Measured = dict[str, Any]
Spread = dict[str, float]


def measured(call: Callable[[], Any]) -> Measured:
    """Calls once.

    Returns:
        `wall_s`, `cpu_s` (all processors, of this process and of its children that ended meanwhile),
        `peak_gb` (largest resident memory of this process so far) and `value`, what the call returned.
    """
    cpu, wall = _processor_seconds(), time.perf_counter()
    value = call()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _processor_seconds() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "value": value,
    }


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def in_turn(
    measurements: Mapping[Name, Callable[[], Measured]], rounds: int, warm_up: int = 1
) -> dict[Name, list[Measured]]:
    """Takes measurements in turn, round after round.

    Args:
        measurements: By name; each returns what `measured` does, as `Worker.ask` does.
        rounds: How often each is taken.
        warm_up: Measurements of each before, which do not count.

    Returns:
        What each returned, one entry a round.
    """
    for measurement in measurements.values():
        for _ in range(warm_up):
            measurement()
    taken: dict[Name, list[Measured]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measurement in measurements.items():
            taken[name].append(measurement())
    return taken


def per(taken: Mapping[Name, Sequence[Measured]], count: int) -> dict[Name, list[Measured]]:
    """Returns measurements of `count` things at once, such as images, with the times of one of them."""
    return {
        name: [entry | {unit: entry[unit] / count for unit in UNITS} for entry in entries]
        for name, entries in taken.items()
    }


def times(taken: Sequence[Measured]) -> dict[str, Spread]:
    """Returns the spread of `wall_s` and of `cpu_s`."""
    return {unit: spread([entry[unit] for entry in taken]) for unit in UNITS}


def ratios(taken: Sequence[Measured], base: Sequence[Measured]) -> dict[str, Spread]:
    """Returns the spread of `wall_s` and of `cpu_s` as shares of `base`, round by round."""
    pairs = list(zip(taken, base, strict=True))
    return {unit: spread([one[unit] / other[unit] for one, other in pairs]) for unit in UNITS}


def spread(values: Sequence[float]) -> Spread:
    """Returns median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def shown(values: Spread, digits: int = 2) -> str:
    """Returns `median (lowest-highest)`."""
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first column is aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


def write(path: Path | None, options: Any, results: Mapping[str, Any]) -> None:
    """Writes results, the flags and what the machine is as JSON; does nothing without a path."""
    from tfseg import cli
    from tfseg.files import write_atomic

    if path is not None:
        content = {"flags": cli.given_values(options), "machine": machine(), "results": results}
        write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def machine() -> dict[str, Any]:
    """Returns processor, cores, memory and how busy the machine is (load of 1 and 15 minutes)."""
    processor, memory = platform.processor(), ""
    with contextlib.suppress(OSError, StopIteration):  # Linux alone has these files.
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = Path("/proc/meminfo").read_text().splitlines()[0].split(":", 1)[1].strip()
    return {
        "processor": processor,
        "cores": cores(),
        "memory": memory,
        "load": [round(load, 1) for load in (os.getloadavg()[0], os.getloadavg()[2])],
        "python": platform.python_version(),
    }


def cores() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process that runs a script which `serve`s, perhaps in another environment or source tree.

    Args:
        script: Name of a file beside this one.
        arguments: Handed to it as one word of JSON, with `started`, the time of the clock.
        python: Which Python runs it.
        tree: Source tree that it imports `tfseg` from, its working directory.

    Attributes:
        ready: What it told when it was ready.
        start_s: Seconds from its start until then.

    Raises:
        InputError: If the process ends instead of answering; also by `ask`.
    """

    def __init__(
        self,
        script: str,
        arguments: Mapping[str, Any],
        python: Path | str = sys.executable,
        tree: Path = ROOT,
    ) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [
                str(python),
                str(Path(__file__).with_name(script)),
                json.dumps({**arguments, "started": time.time()}),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()
        self.start_s = time.perf_counter() - started

    def __enter__(self) -> "Worker":
        """Returns itself; the process ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self, what: str) -> Measured:
        """Has the process take one measurement, and returns it."""
        with contextlib.suppress(BrokenPipeError):  # The answer tells why.
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):  # Libraries print what they like.
                return json.loads(line)
        from tfseg.errors import InputError

        raise InputError(f"the process that measures ended with status {self._process.wait()}")


def serve(ready: Mapping[str, Any], measurements: Mapping[str, Callable[[], Any]]) -> None:
    """Answers each line of standard input, a measurement's name, by one line of JSON; ends with the input.

    Args:
        ready: Told at once.
        measurements: What is called, by name.
    """
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(measurements[line.strip()])), flush=True)


class Laps:
    """What the parts of a start took.

    Args:
        started: The time of the clock when it began.

    Attributes:
        seconds: By part.
    """

    def __init__(self, started: float) -> None:
        self._last = started
        self.seconds: dict[str, float] = {}

    def end(self, part: str) -> None:
        """Notes that a part is over, and that the next begins."""
        now = time.time()
        self.seconds[part] = now - self._last
        self._last = now


def peer(name: str) -> Path | None:
    """Returns the Python of `.venv-NAME`; None, with a word about it, where it is not there."""
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if python.exists():
        return python
    print(f"left out: there is no .venv-{name}; make .venv-{name}/installed builds it", file=sys.stderr)
    return None
