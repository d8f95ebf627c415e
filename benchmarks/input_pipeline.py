"""Times the training stream against a pipeline that does nothing but decode the same JPEG files.

Also the stream's parts, the Python code that it calls for each pair, and updates on the stream against
updates on one batch that stays in memory. Without --data_dir it draws images of its own.
"""

import contextlib
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks import timing
from tfseg import cli

if TYPE_CHECKING:
    import tensorflow as tf

    from tfseg.data.sampling import PairStream

DECODE, STREAM = "decode the JPEG files only", "the training stream"
EXAMPLES = (
    "--data_dir=runs/photos/records --output=input_pipeline.json",
    "--drawn_size=96 --image_size=96 --resize_to=99 --batch_size=32 --preset=tiny",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    data_dir: Path | None = cli.flag(
        "Folder of records with the splits source_train and target_train; by default some are drawn.",
        default=None,
        exists="folder",
    )
    drawn_size: int = cli.flag("Side of the images that are drawn.", default=450, lower=64)
    image_size: int = cli.flag("Side of the examples.", default=320, lower=16)
    resize_to: int = cli.flag("Side that they are cut out of.", default=330, lower=16)
    batch_size: int = cli.flag("Pairs of a batch, half of each domain.", default=16, lower=2)
    pairs: int = cli.flag("Pairs that are timed at once.", default=512, lower=32)
    threads: int = cli.flag("Threads of the pipelines; 0: one a processor.", default=0, lower=0)
    preset: Literal["none", "official", "paper", "tiny"] = cli.flag(
        "Network whose updates are timed on the stream and on one batch.", default="none"
    )
    updates: int = cli.flag("Updates that are timed at once.", default=10, lower=1)
    rounds: int = cli.flag("Timed rounds; the median counts.", default=5, lower=1)
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.input_pipeline", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    from tfseg.data.records import Split
    from tfseg.data.sampling import PairStream

    with _records(options) as folder:
        source, target = (Split.load(folder, f"{domain}_train") for domain in ("source", "target"))
        streams = {"source": PairStream(source, 0), "target": PairStream(target, 0, masks=0)}
        results = measure_stream(options, streams)
        print_stream(options, results)
        if options.preset != "none":
            results["training"] = measure_training(options, streams)
            print_training(options, results["training"])
    timing.write(options.output, options, results)


@contextlib.contextmanager
def _records(options: BenchmarkOptions) -> Iterator[Path]:
    if options.data_dir is not None:
        yield options.data_dir
        return
    from tfrecords import coco, synthetic, voc
    from tfseg.data.labels import LabelMap

    with tempfile.TemporaryDirectory() as folder:
        drawn, records = Path(folder) / "drawn", Path(folder) / "records"
        sizes = {"source_train": 64, "target_train": 64, "target_val": 1}
        synthetic.build(drawn, synthetic.Options(0, image_size=options.drawn_size, **sizes))
        label_map = LabelMap.load(drawn / "labels.json")
        annotations, images = drawn / "coco/annotations/instances_train.json", drawn / "coco/train"
        coco.build(annotations, images, label_map, coco.Rules(), "source_train", records)
        layout = voc.VocFolder(drawn / "VOCdevkit/VOC2012", label_map)
        voc.build(layout, "train", records, output_split="target_train")
        yield records


def measure_stream(options: BenchmarkOptions, streams: "Mapping[str, PairStream]") -> dict[str, dict]:
    """Times the stream, its first parts, and the decoding alone.

    Returns:
        `{"pairs": {part: spreads of "wall_s" and "cpu_s" of a pair, and "of decoding": both as shares of
        `DECODE`}, "python": the same of the Python code of a pair}`.
    """
    measurements = {
        name: functools.partial(_drain, options, dataset, count)
        for name, (dataset, count) in _pipelines(options, streams).items()
    }
    share = options.batch_size // len(streams)

    def read() -> None:
        for position in range(options.pairs // len(streams)):
            for stream in streams.values():
                stream.split.read(stream.at(share + position).index)

    measurements["Python code of the stream"] = functools.partial(timing.measured, read)
    taken = timing.per(timing.in_turn(measurements, options.rounds), options.pairs)
    return {
        "pairs": {
            name: timing.times(entries) | {"of decoding": timing.ratios(entries, taken[DECODE])}
            for name, entries in taken.items()
        }
    }


def _pipelines(
    options: BenchmarkOptions, streams: "Mapping[str, PairStream]"
) -> "dict[str, tuple[tf.data.Dataset, int]]":
    """Returns datasets without end and the pairs of an element."""
    import tensorflow as tf

    from tfseg.data.batches import stored_pairs, training_batches
    from tfseg.data.records import parse
    from tfseg.data.transform import Transform, decode_image

    share = options.batch_size // len(streams)
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    stored = {domain: stored_pairs(stream, share) for domain, stream in streams.items()}
    decoded = {
        domain: dataset.map(lambda _, serialized, *rest: decode_image(parse(serialized)["image"]), **parallel)
        for domain, dataset in stored.items()
    }
    pairs = [
        stream.split.read(stream.at(position).index)
        for position in range(options.pairs // len(streams))
        for stream in streams.values()
    ]
    files = tf.data.Dataset.from_tensor_slices([parse(serialized)["image"] for serialized in pairs])
    transform = Transform(options.image_size, options.resize_to)
    datasets = {
        DECODE: (files.repeat().map(decode_image, **parallel), 1),
        "read": (tf.data.Dataset.zip(stored), len(streams)),
        "read, decode": (tf.data.Dataset.zip(decoded), len(streams)),
        STREAM: (training_batches(streams, transform, options.batch_size, seed=0), options.batch_size),
    }
    threading = tf.data.Options()
    if options.threads:
        threading.threading.private_threadpool_size = options.threads
    return {name: (dataset.with_options(threading), count) for name, (dataset, count) in datasets.items()}


def _drain(options: BenchmarkOptions, dataset: "tf.data.Dataset", count: int) -> timing.Measured:
    """Times `options.pairs` pairs in the middle of a dataset; its threads end with the call."""
    iterator = iter(dataset)

    def take(pairs: int) -> None:
        for _ in range(pairs // count):
            next(iterator)

    take(options.pairs // 2)
    return timing.measured(lambda: take(options.pairs))


def measure_training(options: BenchmarkOptions, streams: "Mapping[str, PairStream]") -> dict[str, dict]:
    """Times updates of the joint stage on the stream and on one batch.

    Returns:
        `{"one batch" | "stream": spreads of "wall_s" and "cpu_s" of an update, and "of one batch": both as
        shares}`.
    """
    from tfseg.data.batches import training_batches
    from tfseg.data.transform import Transform

    update, size = _update(options, streams)
    transform = Transform(size, round(size * options.resize_to / options.image_size))
    iterator = iter(training_batches(streams, transform, options.batch_size, seed=0))
    batch = next(iterator)

    def updates(following: Callable[[], dict]) -> None:
        for _ in range(options.updates):
            loss = update(following())["loss"]
        float(loss)

    measurements = {
        "one batch": functools.partial(timing.measured, lambda: updates(lambda: batch)),
        "stream": functools.partial(timing.measured, lambda: updates(lambda: next(iterator))),
    }
    taken = timing.per(timing.in_turn(measurements, options.rounds), options.updates)
    return {
        name: timing.times(entries) | {"of one batch": timing.ratios(entries, taken["one batch"])}
        for name, entries in taken.items()
    }


def _update(options: BenchmarkOptions, streams: "Mapping[str, PairStream]") -> tuple[Callable, int]:
    """Returns the update of the joint stage and the side of its images."""
    import keras

    from tfseg.config import preset
    from tfseg.models import build_transfernet
    from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
    from tfseg.training.stages import SegmentationStage
    from tfseg.training.step import build_train_step

    keras.utils.set_random_seed(0)
    labels = streams["source"].split.label_map.num_labels
    config = preset(options.preset).replace(num_labels=labels)
    stage = SegmentationStage(build_transfernet(config), joint=True)
    optimizer = AdamWithMultipliers(official_multipliers(stage.trained), learning_rate=1e-4)
    optimizer.build(stage.trained)
    micro = min(4, options.batch_size // 2) if options.preset != "tiny" else 0
    return build_train_step(stage, optimizer, tuple(streams), options.batch_size, micro), config.image_size


def print_stream(options: BenchmarkOptions, results: dict[str, dict]) -> None:
    """Prints time a pair, pairs a second, and shares of the decoding."""
    rows = []
    for name, row in results["pairs"].items():
        per_second = 1 / row["wall_s"]["median"]
        shares = [f"{timing.shown(row['of decoding'][unit])}x" for unit in timing.UNITS]
        milliseconds = [f"{1e3 * row[unit]['median']:.3f}" for unit in timing.UNITS]
        rows.append([name, milliseconds[0], f"{per_second:.0f}", shares[0], milliseconds[1], shares[1]])
    head = f"a pair, {options.image_size}x{options.image_size}"
    timing.print_table([head, "clock, ms", "pairs/s", "of decoding", "processors, ms", "of decoding"], rows)
    found = results["pairs"]
    for unit, title in (("wall_s", "clock"), ("cpu_s", "processors' time")):
        speed = 1 / found[STREAM]["of decoding"][unit]["median"]
        print(f"{title}: the stream has {speed:.2f} times the speed of decoding alone")
    python = found["Python code of the stream"]["cpu_s"]["median"]
    print(
        f"Python code: {1e6 * python:.0f} us a pair, {python / found[STREAM]['cpu_s']['median']:.1%} of the "
        f"stream's; 600 pairs/s, which feed a GPU, take {600 * python:.1%} of one processor"
    )


def print_training(options: BenchmarkOptions, results: dict[str, dict]) -> None:
    """Prints the time of an update on the stream and on one batch."""
    print()
    rows = [
        [
            name,
            *(
                text
                for unit in timing.UNITS
                for text in (timing.shown(row[unit], 3), f"{timing.shown(row['of one batch'][unit], 3)}x")
            ),
        ]
        for name, row in results.items()
    ]
    head = f"update, {options.preset}, {options.batch_size} pairs"
    timing.print_table([head, "clock, s", "of one batch", "processors, s", "of one batch"], rows)


if __name__ == "__main__":
    sys.exit(main())
