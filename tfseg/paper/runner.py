"""Runs commands one after the other, each in a process of its own; what is finished stays finished.

A crash is contained: the job's log is kept, jobs that depend on it are skipped, all others go on. A job is
run again when its flags, its flagfiles (nested ones included), its data or a job that it depends on have
changed; what it wrote before is kept under another name.
"""

import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfseg import stopping
from tfseg.cli import expand_flagfiles, format_seconds
from tfseg.files import write_atomic
from tfseg.folders import sole_writer
from tfseg.training.cluster import refuse_cluster

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 120.0
"""How long a stopped job may take to save its work."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: Unique, as in `seed1/transfernet/joint`; also names its log.
        kind: Jobs of a kind take about equally long.
        argv: Words after the Python interpreter.
        product: File that is there once the job is finished.
        after: Names of the jobs that it depends on.
        data: Names the content of the data that it reads.
        writes: Files and folders that it writes, `product` in one of them; they are renamed before the job
            is run under another key. None for `product` alone.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    product: Path
    after: tuple[str, ...] = ()
    data: str = ""
    writes: tuple[Path, ...] | None = None

    def key(self, dependencies: Sequence[str] = ()) -> str:
        """Names what the job computes.

        Args:
            dependencies: Ids of the runs of `after` whose results it reads.

        Returns:
            Hash of the flags, with those of flagfiles in their place, of the data and of `dependencies`.

        Raises:
            InputError: If a flagfile cannot be read.
        """
        words = expand_flagfiles(self.argv)
        return hashlib.sha256(json.dumps([words, self.data, *dependencies]).encode()).hexdigest()

    def command_line(self) -> str:
        """Returns the command as a person types it."""
        return shlex.join(["python", *self.argv])


class Runner:
    """Runs jobs and remembers which are finished.

    Args:
        output_dir: Takes `jobs/NAME.json`, written when a job starts and when it is finished, and
            `jobs/NAME.log`.
        jobs: In an order in which each follows those that it depends on.
    """

    def __init__(self, output_dir: Path, jobs: Sequence[Job]) -> None:
        self._folder = output_dir / "jobs"
        self.jobs = tuple(jobs)
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self._runs: dict[str, str] = {}  # Id of the finished run of each job.
        for job in jobs:
            self._recognize(job)

    def run(self) -> bool:
        """Runs what is not finished; returns whether everything is now.

        Raises:
            InputError: If another process runs jobs there, or `TF_CONFIG` is set, which each job would take
                for itself.
            Stopped: If it was told to stop. The job that was under way saves its work first; a second call
                starts where this one ended.
        """
        refuse_cluster()
        with sole_writer(self._folder, ""):
            return self._run_waiting()

    def _run_waiting(self) -> bool:
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
            try:
                self._run(job)
            except stopping.Stopped as stopped:
                finished = f"{len(self.seconds)} of {len(self.jobs)} runs are finished"
                stopped.add_note(f"{finished}; the same command goes on")
                raise
        for name, reason in self.failed.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        return not self.failed

    def products(self) -> set[Path]:
        """Returns the products of the jobs that are finished; others may be of an earlier run."""
        return {job.product for job in self.jobs if job.name in self.seconds}

    def summary(self) -> list[dict[str, Any]]:
        """Returns what each job was, how long it took (None: not finished) and why it failed."""
        return [
            {
                "name": job.name,
                "command": job.command_line(),
                "seconds": self.seconds.get(job.name),
                "error": self.failed.get(job.name),
            }
            for job in self.jobs
        ]

    def _recognize(self, job: Job) -> None:
        """Takes a job as finished if it was, under the same key, and all that it depends on is."""
        note = self._note(job)
        if not note.get("run") or any(name not in self._runs for name in job.after):
            return
        if job.product.exists() and note["key"] == self._key(job):
            self._runs[job.name], self.seconds[job.name] = note["run"], float(note["seconds"])

    def _run(self, job: Job) -> None:
        log = self._folder / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        key, note = self._key(job), self._note(job)
        # A job that was interrupted goes on where it stopped, if its key is still this one.
        if note and note["key"] != key:
            for path in job.writes or (job.product,):
                _set_aside(path)
        started = {"command": job.command_line(), "key": key}
        self._write_note(job, started)
        begin = time.monotonic()
        with log.open("wb") as file:
            # In a group of its own, Ctrl-C reaches it through us alone, and once.
            process = subprocess.Popen(
                [sys.executable, *job.argv],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
        with stopping.later(f"{job.name} has saved its work", process.kill) as stop:
            try:
                _watch(process, log, stop)
            finally:
                _end(process)
        if process.returncode:
            stop.check()
        seconds = time.monotonic() - begin
        if process.returncode:
            reason = f"status {process.returncode}: {_last_words(log)}; see {log}"
        elif not job.product.exists():
            reason = f"ended well but did not write {job.product}; see {log}"
        else:
            self.seconds[job.name], self._runs[job.name] = seconds, uuid.uuid4().hex
            self._write_note(job, {**started, "seconds": round(seconds, 1), "run": self._runs[job.name]})
            stop.check()
            return
        self.failed[job.name] = reason
        print(f"failed: {job.name}: {reason}", file=sys.stderr, flush=True)

    def _key(self, job: Job) -> str:
        return job.key([self._runs[name] for name in job.after])

    def _note(self, job: Job) -> dict[str, Any]:
        """Returns what was noted of a job; empty if nothing, or the file is damaged."""
        try:
            note = json.loads((self._folder / f"{job.name}.json").read_text())
            return note if isinstance(note, dict) and isinstance(note.get("key"), str) else {}
        except (OSError, ValueError):
            return {}

    def _write_note(self, job: Job, note: dict[str, Any]) -> None:
        write_atomic(self._folder / f"{job.name}.json", (json.dumps(note, indent=2) + "\n").encode())

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


def _set_aside(path: Path) -> None:
    """Renames what an earlier run wrote to `NAME.replaced-N`; nothing is deleted."""
    if not path.exists():
        return
    number = 1
    while (kept := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    path.rename(kept)
    print(f"{path}: was made by other flags, data or earlier runs; kept as {kept.name}", flush=True)


def _end(process: subprocess.Popen) -> None:
    """Stops a process that still runs; it may save its work."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _watch(process: subprocess.Popen, log: Path, stop: stopping.Stop) -> None:
    """Waits for a process or a stop; on a terminal, shows the last line of its log meanwhile."""
    shown = 0
    while stop.signal is None:
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
