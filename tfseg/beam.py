"""Apache Beam, for the commands that can run on it."""

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tfseg.errors import InputError

if TYPE_CHECKING:
    import apache_beam

Task = TypeVar("Task")
Result = TypeVar("Result")


def runner_flags(runner: str, words: Sequence[str]) -> tuple[str, ...]:
    """Joins `--runner` and the words after `--` on a command line.

    Raises:
        InputError: If there are words that are no flags, or flags without a runner.
    """
    strange = [word for word in words if not word.startswith("--")]
    if strange or (words and not runner):
        wanted = "words after -- are flags of the Apache Beam runner that --runner names"
        raise InputError(f"left-over words on the command line: {' '.join(strange or words)}; {wanted}")
    return (f"--runner={runner}", *words) if runner else ()


def make_pipeline(flags: Sequence[str]) -> "apache_beam.Pipeline":
    """Returns an empty pipeline on the runner of `flags`, which are Beam's; without any on this machine.

    Raises:
        InputError: If Beam is not installed, or there is no such runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError("this needs Apache Beam: pip install 'tfseg[beam]'") from error
    try:
        return beam.Pipeline(options=PipelineOptions(list(flags)))
    except ValueError as error:
        raise InputError(f"Apache Beam refuses {' '.join(flags)}: {' '.join(str(error).split())}") from error


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], flags: Sequence[str], folder: Path
) -> Iterator[Result]:
    """Yields `function(task)` for each task, in the order of the tasks, computed by workers of Apache Beam.

    Args:
        function: a function of a module (workers import it by its name).
        tasks: its arguments.
        flags: as `make_pipeline`.
        folder: where workers leave results; they and this process must see it under the same path.

    Raises:
        InputError: a task raised one; also as `make_pipeline`.
        OSError: a task raised one.
    """
    pipeline = make_pipeline(flags)
    import apache_beam as beam

    paths = [folder / f"{i}.result" for i in range(len(tasks))]
    _ = (
        pipeline
        | beam.Create(list(zip(tasks, paths, strict=True)), reshuffle=False)
        | beam.Reshuffle()  # Tasks go to all workers.
        | beam.Map(functools.partial(_run_task, function))
    )
    pipeline.run().wait_until_finish()
    for path in paths:
        result = pickle.loads(path.read_bytes())
        path.unlink()
        if isinstance(result, Exception):
            raise result
        yield result


def _run_task(function: Callable[[Any], Any], work: tuple[Any, Path]) -> None:
    task, path = work
    try:
        result = function(task)
    except (InputError, OSError) as error:  # For people; Beam would wrap it in its own.
        result = error
    draft = path.with_suffix(".tmp")
    draft.write_bytes(pickle.dumps(result))
    draft.replace(path)
