"""Running one function over many tasks in several processes, in order, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tfseg import cli, stopping
from tfseg.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    title: str,
    unit: str,
    sizes: Sequence[int] | None = None,
    preload: Sequence[str] = (),
) -> Iterator[Result]:
    """Yields `function(task)` for each task, in the order of the tasks.

    Args:
        function: a function of a module (workers import it by its name).
        tasks: its arguments.
        workers: number of processes; with 1 everything runs in this one.
        title: what the progress bar says.
        unit: what the bar counts.
        sizes: how many units each task is worth; 1 each if None.
        preload: modules to be imported once for all workers.

    Raises:
        InputError: `workers` is below 1, a task raised one, or a worker was killed.
    """
    if workers < 1:
        raise InputError(f"--workers={workers}: must be at least 1")
    sizes = sizes or [1] * len(tasks)
    workers = min(workers, max(len(tasks), 1))
    with cli.progress_bar(title, unit, sum(sizes)) as bar:
        results = map(function, tasks) if workers == 1 else _map(function, tasks, workers, preload)
        for size, result in zip(sizes, results, strict=True):
            yield result
            bar.update(size)


def _map(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    preload: Sequence[str],
) -> Iterator[Result]:
    # Not fork: a process that runs TensorFlow has threads, and a fork of it may hang.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    executor = ProcessPoolExecutor(workers, context, initializer=stopping.leave_to_parent)
    try:
        yield from executor.map(function, tasks)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely for want of memory; try fewer --workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
