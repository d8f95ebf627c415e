"""Times segmentation: labels an image against one full pass a label and PyTorch; signatures; whole commands.

Images of random pixels go through a network of random weights: encoder, decoder, all
labels of an image on one encoding, one full pass a label (the authors' way), and the same in PyTorch, where
.venv-torch is there. Then each signature of an export of that network, and tfseg.predict and tfseg.evaluate
end to end.
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks import timing
from tfseg import cli

if TYPE_CHECKING:
    import tensorflow as tf

    from tfseg.config import ModelConfig
    from tfseg.model_dir import ModelDir

LABELS, BATCHES = (1, 2, 3, 5), (1, 8)
EXAMPLES = (
    "--image_size=320 --output=inference.json",
    "--preset=tiny --image_size=96 --drawn_size=96 --rounds=2",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    preset: Literal["official", "paper", "tiny"] = cli.flag("Shape of the network.", default="official")
    image_size: int = cli.flag("Side of the network's square; 0: the preset's.", default=160, lower=0)
    drawn_size: int = cli.flag("Side of the images that the commands segment.", default=450, lower=64)
    images: int = cli.flag("Number of those images.", default=32, lower=1)
    parts: bool = cli.flag("Time the network by labels an image.", default=True)
    signatures: bool = cli.flag("Time the signatures of an export.", default=True)
    commands: bool = cli.flag("Time tfseg.predict and tfseg.evaluate.", default=True)
    threads: int = cli.flag("Threads of an operation; 0: one a processor.", default=0, lower=0)
    rounds: int = cli.flag("Timed rounds; the median counts.", default=3, lower=1)
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.inference", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    import keras
    import tensorflow as tf

    from tfrecords import synthetic
    from tfseg.config import preset
    from tfseg.model_dir import ModelDir, save_model_dir
    from tfseg.models import build_classifier, build_transfernet

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(0)
    label_map = synthetic.label_map()
    config = preset(options.preset)
    config = config.replace(
        image_size=options.image_size or config.image_size, num_labels=label_map.num_labels
    )
    model = build_transfernet(config)
    results: dict[str, Any] = {}
    if options.parts:
        results["parts"] = measure_parts(options, config, model)
        print_parts(results["parts"])
    if options.signatures or options.commands:
        classifier = build_classifier(config)
        with tempfile.TemporaryDirectory() as folder:
            directory = ModelDir(Path(folder) / "model", "transfernet", config, label_map)
            if options.signatures:
                results["signatures"] = measure_signatures(options, directory, model, classifier)
                print_signatures(results["signatures"])
            if options.commands:
                save_model_dir(directory, model, classifier)
                results["commands"] = measure_commands(options, directory)
                print_commands(results["commands"])
    timing.write(options.output, options, results)


def measure_parts(options: BenchmarkOptions, config: "ModelConfig", model: Any) -> dict[str, dict]:
    """Times each way for `LABELS` an image and `BATCHES` images at once, in turn.

    Returns:
        By `batch B, labels K`: `{way: spreads of "wall_s" and "cpu_s" of the batch, and "of tfseg"}` for the
        ways `tfseg`, `one pass a label`, `PyTorch`, and `sum`: the encoder's time and K times the decoder's.
    """
    from tfseg.inference.networks import KerasNetwork

    network = KerasNetwork(model)
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (max(BATCHES), config.image_size, config.image_size, 3)).astype(np.uint8)

    def locate(encoded: Any, batch: int, labels: Sequence[int]) -> None:
        index = np.repeat(np.arange(batch), len(labels))
        network.locate(encoded, index, np.tile(labels, batch))

    def encode(batch: int) -> dict[str, "tf.Tensor"]:
        encoded = network.encode(squares[:batch])
        encoded["features"][0, 0, 0, 0].numpy()
        return encoded

    def each(batch: int, labels: int) -> None:
        for label in range(1, labels + 1):
            locate(network.encode(squares[:batch]), batch, [label])

    calls: dict[tuple[str, int, int], Callable[[], Any]] = {}
    for batch in BATCHES:
        encoded = encode(batch)
        calls["encoder", batch, 0] = functools.partial(encode, batch)
        calls["decoder", batch, 1] = functools.partial(locate, encoded, batch, [1])
        for count in LABELS:
            labels = list(range(1, count + 1))
            calls["tfseg", batch, count] = lambda b=batch, labels=labels: locate(
                network.encode(squares[:b]), b, labels
            )
            calls["one pass a label", batch, count] = functools.partial(each, batch, count)
    measurements = {key: functools.partial(timing.measured, call) for key, call in calls.items()}
    with contextlib.ExitStack() as stack:
        if python := timing.peer("torch"):
            arguments = {"preset": options.preset, "threads": options.threads}
            arguments |= {"image_size": config.image_size, "num_labels": config.num_labels}
            worker = stack.enter_context(timing.Worker("torch_inference.py", arguments, python))
            for batch, count in itertools.product(BATCHES, LABELS):
                measurements["PyTorch", batch, count] = functools.partial(worker.ask, f"{batch} {count}")
        taken = timing.in_turn(measurements, options.rounds)
    for batch, count in itertools.product(BATCHES, LABELS):
        parts = zip(taken["encoder", batch, 0], taken["decoder", batch, 1], strict=True)
        taken["sum", batch, count] = [{u: a[u] + count * b[u] for u in timing.UNITS} for a, b in parts]
    return {
        f"batch {batch}, labels {count}": {
            way: timing.times(taken[way, batch, count])
            | {"of tfseg": timing.ratios(taken[way, batch, count], taken["tfseg", batch, count])}
            for way in ("tfseg", "sum", "one pass a label", "PyTorch")
            if (way, batch, count) in taken
        }
        for batch, count in itertools.product(BATCHES, LABELS)
    }


def print_parts(results: dict[str, dict]) -> None:
    """Prints images a second, and the time of each way as times tfseg's."""
    rows = []
    for name, ways in results.items():
        batch = int(name.split(",")[0].split()[1])
        for way, row in ways.items():
            shares = [f"{timing.shown(row['of tfseg'][unit])}x" for unit in timing.UNITS]
            milliseconds = f"{1e3 * row['cpu_s']['median'] / batch:.1f}"
            rows.append(
                [name, way, f"{batch / row['wall_s']['median']:.2f}", shares[0], milliseconds, shares[1]]
            )
    head = ["", "", "images/s", "time, clock", "processors, ms an image", "time, processors"]
    timing.print_table(head, rows)


def measure_signatures(
    options: BenchmarkOptions, directory: "ModelDir", model: Any, classifier: Any
) -> dict[str, dict]:
    """Times each signature of an export on one image, as a server runs it: no XLA is in the graph.

    Returns:
        `{signature: spreads of "wall_s" and "cpu_s", and "of the network": both as shares of encoding and
        decoding one image without an export}`.
    """
    import tensorflow as tf

    from export.publish import export_model
    from tfseg.inference.networks import KerasNetwork

    network, size = KerasNetwork(model), directory.config.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    encoded_image = tf.io.encode_jpeg(image[0])
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded_image.numpy()]))
    labels = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    features = tf.train.Features(feature={"image/encoded": feature, "image/labels": labels})
    feeds = {
        "image": tf.constant(image),
        "label": tf.constant([1]),
        "labels": tf.constant([[1]]),
        "image_bytes": tf.reshape(encoded_image, (1,)),
        "examples": tf.constant([tf.train.Example(features=features).SerializeToString()]),
    }
    version = directory.path.with_name("export") / "1"
    export_model(directory, model, classifier, version)
    loaded = tf.saved_model.load(str(version))

    def plain() -> None:
        network.locate(network.encode(image), np.zeros(1, np.int32), np.ones(1, np.int32))

    calls: dict[str, Callable[[], Any]] = {"the network": plain}
    for name, function in loaded.signatures.items():
        inputs = {
            key: tf.constant([[directory.label_map.label(1).name]])
            if (key, spec.dtype) == ("labels", tf.string)
            else tf.cast(feeds[key], spec.dtype)
            if key == "image"
            else feeds[key]
            for key, spec in function.structured_input_signature[1].items()
        }
        calls[name] = lambda function=function, inputs=inputs: (
            {key: value.numpy() for key, value in function(**inputs).items()} and None
        )
    measurements = {name: functools.partial(timing.measured, call) for name, call in calls.items()}
    taken = timing.in_turn(measurements, options.rounds)
    return {
        name: timing.times(entries) | {"of the network": timing.ratios(entries, taken["the network"])}
        for name, entries in taken.items()
    }


def print_signatures(results: dict[str, dict]) -> None:
    """Prints the time of each signature, and as times that of the network alone."""
    print()
    rows = [
        [
            name,
            f"{1e3 * row['wall_s']['median']:.1f}",
            f"{timing.shown(row['of the network']['wall_s'])}x",
            f"{1e3 * row['cpu_s']['median']:.1f}",
            f"{timing.shown(row['of the network']['cpu_s'])}x",
        ]
        for name, row in results.items()
    ]
    head = ["signature, one image", "clock, ms", "of the network", "processors, ms", "of the network"]
    timing.print_table(head, rows)


def measure_commands(options: BenchmarkOptions, directory: "ModelDir") -> dict[str, dict]:
    """Runs tfseg.predict and tfseg.evaluate, and tells how long they wait for the network.

    Returns:
        `{command: {"images_per_s": without the start, "network_share": part of the clock's time from the
        first use of the network to the end of the command}}`, spreads.
    """
    from tfrecords import synthetic, voc
    from tfseg import evaluate, predict

    folder = directory.path.parent
    drawn, records = folder / "drawn", folder / "records"
    sizes = {"source_train": 1, "target_train": 1, "target_val": options.images}
    synthetic.build(drawn, synthetic.Options(0, image_size=options.drawn_size, **sizes))
    layout = voc.VocFolder(drawn / "VOCdevkit/VOC2012", directory.label_map)
    voc.build(layout, "val", records, output_split="target_val")
    model_dir = f"--model_dir={directory.path}"
    names = (drawn / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").read_text().split()
    files = [str(drawn / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg") for name in names]
    commands = {
        "tfseg.predict, one label": lambda out: predict.main(
            [model_dir, f"--output_dir={out}", "--label=1", *files]
        ),
        "tfseg.evaluate, true labels": lambda out: evaluate.main(
            [model_dir, f"--output_dir={out}", f"--data_dir={records}", "--labels=ground_truth"]
        ),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(options.rounds):
        for name, command in commands.items():
            with _network_time() as spent:
                command(folder / f"out-{turn}-{len(found[name])}-{name.split(',')[0]}")
                whole = time.perf_counter() - spent["first"]
            share = spent["network"] / whole
            found[name].append({"images_per_s": options.images / whole, "network_share": share})
    return {
        name: {key: timing.spread([entry[key] for entry in entries]) for key in entries[0]}
        for name, entries in found.items()
    }


@contextlib.contextmanager
def _network_time() -> Iterator[dict[str, float]]:
    """Adds up the time in `KerasNetwork` within the block: `network`, and when it began: `first`."""
    from tfseg.inference.networks import KerasNetwork

    spent = {"network": 0.0, "first": float("inf")}
    own = {name: getattr(KerasNetwork, name) for name in ("encode", "locate", "classify")}

    def timed(method: Callable) -> Callable:
        @functools.wraps(method)
        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            spent["first"] = min(spent["first"], started)
            try:
                return method(*arguments)
            finally:
                spent["network"] += time.perf_counter() - started

        return call

    try:
        for name, method in own.items():
            setattr(KerasNetwork, name, timed(method))
        yield spent
    finally:
        for name, method in own.items():
            setattr(KerasNetwork, name, method)


def print_commands(results: dict[str, dict]) -> None:
    """Prints images a second and the network's share of each command."""
    print()
    rows = [
        [name, *(timing.shown(row[key]) for key in ("images_per_s", "network_share"))]
        for name, row in results.items()
    ]
    timing.print_table(["command, start left out", "images/s", "share of the network"], rows)


if __name__ == "__main__":
    sys.exit(main())
