"""Times what evaluation does beside the network: the confusion matrix, and the CRF in several processes.

The confusion matrix is timed against `keras.metrics.MeanIoU` and, where .venv-torch is there, torchmetrics;
all must count the same. The CRF refines the images of a stream in processes of its own, 1 and more in turn.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import timing
from benchmarks.label_maps import CLASSES, label_maps
from tfseg import cli
from tfseg.errors import InputError

EXAMPLES = ("--output=evaluation.json", "--images=4 --crf_images=0 --rounds=2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    images: int = cli.flag("Label maps that are counted at once.", default=16, lower=1)
    height: int = cli.flag("Of the images, pixels.", default=375, lower=8)
    width: int = cli.flag("Of the images, pixels.", default=500, lower=8)
    crf_images: int = cli.flag("Images that the CRF refines at once; 0 leaves it out.", default=8, lower=0)
    crf_processes: int = cli.flag("Processes of the CRF, against one.", default=timing.cores(), lower=1)
    rounds: int = cli.flag("Timed rounds; the median counts.", default=5, lower=1)
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.evaluation", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    results = {"confusion matrix": measure_counts(options)}
    if options.crf_images:
        results["crf"] = measure_crf(options)
    for title, ways in results.items():
        print()
        print_ways(title, ways)
    timing.write(options.output, options, results)


def measure_counts(options: BenchmarkOptions) -> dict[str, dict]:
    """Times counting all images, one after the other as evaluation does, in turn.

    Returns:
        `{way: spreads of "wall_s" and "cpu_s" of an image, and "of tfseg": both as shares}`.

    Raises:
        InputError: If two ways count differently.
    """
    import keras

    from tfseg.evaluation.miou import ConfusionMatrix

    truth, guess = label_maps(options.images, options.height, options.width)

    def ours() -> np.ndarray:
        matrix = ConfusionMatrix(range(1, CLASSES))
        for pair in zip(truth, guess, strict=True):
            matrix.add(*pair)
        return matrix.matrix[:, :-1]

    def theirs() -> np.ndarray:
        metric = keras.metrics.MeanIoU(CLASSES, ignore_class=255)
        for pair in zip(truth, guess, strict=True):
            metric.update_state(*pair)
        return np.asarray(metric.total_cm)

    measurements = {"tfseg": ours, "keras.metrics.MeanIoU": theirs}
    measurements = {name: functools.partial(_counted, call) for name, call in measurements.items()}
    with contextlib.ExitStack() as stack:
        if python := timing.peer("torch"):
            arguments = {"images": options.images, "height": options.height, "width": options.width}
            worker = stack.enter_context(timing.Worker("torch_evaluation.py", arguments, python))
            measurements["torchmetrics"] = functools.partial(worker.ask, "count")
        taken = timing.in_turn(measurements, options.rounds)
    for name, entries in taken.items():
        if entries[0]["value"] != taken["tfseg"][0]["value"]:
            raise InputError(f"{name} counts other pixels than tfseg")
    return _compared(timing.per(taken, options.images), "tfseg")


def _counted(call: Callable[[], np.ndarray]) -> timing.Measured:
    found = timing.measured(call)
    return found | {"value": found["value"].astype(int).tolist()}


class _Anywhere:
    """A network that costs nothing and finds a disc in each image."""

    image_size, image_fit, can_classify = 320, "pad", False

    def encode(self, images: np.ndarray) -> np.ndarray:
        return images

    def locate(self, encoded: np.ndarray, index: np.ndarray, labels: np.ndarray) -> "object":
        from tfseg.inference.networks import PairMaps

        y, x = np.mgrid[-1:1:320j, -1:1:320j]
        return PairMaps(
            np.repeat((np.hypot(y, x) < 0.6).astype(np.float32)[None] * 0.8 + 0.1, len(labels), 0)
        )


def measure_crf(options: BenchmarkOptions) -> dict[str, dict]:
    """Times a stream of images whose masks the CRF refines, in one process and in several.

    Returns:
        As `measure_counts`, with "of 1 process"; the start of the processes is part of it.
    """
    from tfrecords.synthetic import label_map
    from tfseg.inference.crf import crf_parameters
    from tfseg.inference.segmenter import Segmenter

    segmenter, parameters = Segmenter(_Anywhere(), label_map()), crf_parameters("official")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.crf_images, options.height, options.width, 3)).astype(np.uint8)

    def refine(processes: int) -> None:
        stream: Iterator = segmenter.segment_many(list(images), [1], crf=parameters, crf_processes=processes)
        for _ in stream:
            pass

    counts = sorted({1, options.crf_processes})
    measurements = {
        f"{count} process{'es' * (count > 1)}": functools.partial(timing.measured, lambda n=count: refine(n))
        for count in counts
    }
    taken = timing.in_turn(measurements, options.rounds)
    return _compared(timing.per(taken, options.crf_images), "1 process")


def _compared(taken: dict[str, list[timing.Measured]], base: str) -> dict[str, dict]:
    return {
        name: timing.times(entries) | {f"of {base}": timing.ratios(entries, taken[base])}
        for name, entries in taken.items()
    }


def print_ways(title: str, ways: dict[str, dict]) -> None:
    """Prints milliseconds an image, and as times the first way's."""
    base = next(key for key in next(iter(ways.values())) if key.startswith("of "))
    rows = [
        [
            name,
            *(
                text
                for unit in timing.UNITS
                for text in (f"{1e3 * row[unit]['median']:.2f}", f"{timing.shown(row[base][unit])}x")
            ),
        ]
        for name, row in ways.items()
    ]
    timing.print_table([f"{title}, an image", "clock, ms", base, "processors, ms", base], rows)


if __name__ == "__main__":
    sys.exit(main())
