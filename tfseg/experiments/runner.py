"""Runs commands one after the other, each in a process of its own; what is finished stays finished.

A crash is contained: the job's log is kept, the jobs that build on it are passed over, all others go on.
"""

import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.reporting.durations import format_seconds

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: Unique, as in `seed1/transfernet/joint`; also names its log.
        kind: Jobs of a kind take about equally long.
        argv: Words after the Python interpreter.
        product: File that is there once the job is finished.
        after: Names of the jobs that it builds on.
        data: Names the content of the data that it reads.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    product: Path
    after: tuple[str, ...] = ()
    data: str = ""

    def key(self) -> str:
        """Names what the job computes: its words, the content of flagfiles among them, and its data."""
        digest = hashlib.sha256(self.data.encode())
        for word in self.argv:
            _, found, path = word.partition("--flagfile=")
            digest.update(Path(path).read_bytes() if found else word.encode() + b"\0")
        return digest.hexdigest()


class Runner:
    """Runs jobs and remembers which are finished.

    Args:
        output_dir: Takes `jobs/NAME.json`, written when a job is finished, and `jobs/NAME.log`.
        jobs: In an order in which each follows those that it builds on.

    Raises:
        InputError: If a finished job was another one than the one of that name now.
    """

    def __init__(self, output_dir: Path, jobs: Sequence[Job]) -> None:
        self._folder = output_dir / "jobs"
        self.jobs = tuple(jobs)
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        for job in jobs:
            done = self._read(job)
            if done is not None:
                self.seconds[job.name] = done["seconds"]

    def run(self) -> bool:
        """Runs what is not finished; returns whether everything is now.

        Ctrl-C goes through: a second call starts where this one ended.
        """
        waiting = [job for job in self.jobs if job.name not in self.seconds]
        print(f"{len(self.jobs)} runs, {len(self.jobs) - len(waiting)} of them finished before", flush=True)
        for position, job in enumerate(waiting):
            broken = [name for name in job.after if name in self.failed]
            if broken:
                self.failed[job.name] = f"not started: {broken[0]} failed"
                continue
            number = self.jobs.index(job) + 1
            left = format_seconds(self._estimate(waiting[position:]))
            print(f"[{number}/{len(self.jobs)}] {job.name} (time left in all: {left})", flush=True)
            self._run(job)
        for name, reason in self.failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        return not self.failed

    def summary(self) -> list[dict[str, Any]]:
        """Returns what each job was, how long it took (None: not finished) and why it failed."""
        return [
            {
                "name": job.name,
                "command": command_line(job),
                "seconds": self.seconds.get(job.name),
                "error": self.failed.get(job.name),
            }
            for job in self.jobs
        ]

    def _run(self, job: Job) -> None:
        log = self._folder / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        key = job.key()
        started = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *job.argv], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
            try:
                _watch(process, log)
            finally:
                # Also on Ctrl-C: nothing goes on behind the back of who stopped it.
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        seconds = time.monotonic() - started
        if process.returncode:
            reason = f"status {process.returncode}: {_last_words(log)}; see {log}"
        elif not job.product.exists():
            reason = f"ended well but did not write {job.product}; see {log}"
        else:
            self.seconds[job.name] = seconds
            done = {"command": command_line(job), "key": key, "seconds": round(seconds, 1)}
            write_atomic(log.with_suffix(".json"), (json.dumps(done, indent=2) + "\n").encode())
            return
        self.failed[job.name] = reason
        print(f"failed: {job.name}: {reason}", file=sys.stderr, flush=True)

    def _read(self, job: Job) -> dict[str, Any] | None:
        path = self._folder / f"{job.name}.json"
        if not path.exists() or not job.product.exists():
            return None
        try:
            done = json.loads(path.read_text())
            seconds, key = float(done["seconds"]), done["key"]
        except (ValueError, KeyError, TypeError):
            return None
        if key != job.key():
            raise InputError(
                f"{path}: {job.name} was finished with other flags, data or another recipe "
                f"({done.get('command')}); give another --output_dir, or delete what is no longer wanted"
            )
        return {"seconds": seconds}

    def _estimate(self, waiting: Sequence[Job]) -> float | None:
        """Returns the seconds that jobs will take, by those of their kind, else by all; None without any."""
        if not self.seconds:
            return None
        by_kind: dict[str, list[float]] = {}
        for job in self.jobs:
            if job.name in self.seconds:
                by_kind.setdefault(job.kind, []).append(self.seconds[job.name])
        overall = sum(self.seconds.values()) / len(self.seconds)
        means = {kind: sum(values) / len(values) for kind, values in by_kind.items()}
        return sum(means.get(job.kind, overall) for job in waiting)


def command_line(job: Job) -> str:
    """Returns a job's command as a person types it."""
    return shlex.join(["python", *job.argv])


def _watch(process: subprocess.Popen, log: Path) -> None:
    """Waits for a process; on a terminal, shows the last line of its log meanwhile."""
    shown = 0
    while True:
        try:
            process.wait(_POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                text = _last_words(log)[:110]
                print("\r" + text.ljust(shown), end="", flush=True)
                shown = len(text)
    if shown:
        print("\r" + " " * shown + "\r", end="", flush=True)


def _last_words(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1] if lines else "(no output)"
