"""Times pooling with switches and unpooling against other ways.

All ways run in turn, round after round, so that their ratios hold although the machine's speed drifts. A copy
of the larger maps shows what moving their bytes takes. TensorFlow Addons and PyTorch run in processes of
their own environments, .venv-tfa and .venv-torch, where those are there; all use every processor.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# TensorFlow reports at length that the argmax op has no XLA kernel; the table says so in one dash.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from keras import ops

from benchmarks import timing
from tfseg import cli
from tfseg.errors import InputError
from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D

KINDS = ("pooling", "unpooling")
MODES = ("forward", "forward + backward", "XLA forward", "XLA forward + backward")
ARGMAX = "argmax op, scatter_nd"
EXAMPLES = ("--rounds=5", "--shape=8,160,160,64 --output=pooling.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    shape: tuple[str, ...] = cli.flag(
        "Maps to pool, B,H,W,C; may stand several times; by default those of the official network.",
        default=("1,320,320,64", "1,160,160,128", "1,80,80,256", "1,40,40,512"),
    )
    rounds: int = cli.flag("Timed rounds; the median counts.", default=15, lower=1)
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def pool_by_slices(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Corners sliced out of the blocks: the gradient of each slice pads it to the full size."""
    batch, height, width, channels = maps.shape
    blocks = ops.reshape(maps, (batch, height // 2, 2, width // 2, 2, channels))
    corners = [blocks[:, :, k // 2, :, k % 2] for k in range(4)]
    return _select(corners)


def pool_by_space_to_depth(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Corners as groups of channels."""
    return _select(ops.split(ops.space_to_depth(maps, 2), 4, axis=-1))


def _select(corners: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    right = [corners[k + 1] > corners[k] for k in (0, 2)]
    top = ops.where(right[0], corners[1], corners[0])
    bottom = ops.where(right[1], corners[3], corners[2])
    switches = ops.where(bottom > top, ops.cast(right[1], "uint8") + 2, ops.cast(right[0], "uint8"))
    return ops.where(bottom > top, bottom, top), ops.cast(switches, "uint8")


def unpool_by_scatter(values: tf.Tensor, argmax: tf.Tensor) -> tf.Tensor:
    """The usual partner of the argmax op; `argmax` counts the batch in."""
    batch, height, width, channels = values.shape
    flat = tf.scatter_nd(
        tf.reshape(argmax, (-1, 1)),
        tf.reshape(values, (-1,)),
        tf.constant([4 * batch * height * width * channels], tf.int64),
    )
    return tf.reshape(flat, (batch, 2 * height, 2 * width, channels))


def unpool_by_broadcast(values: tf.Tensor, switches: tf.Tensor) -> tf.Tensor:
    """One select over broadcast blocks: quick forwards, but its gradient is a slow reduction."""
    batch, height, width, channels = values.shape
    corner = ops.convert_to_tensor([[0, 1], [2, 3]], "uint8")[:, None, :, None]
    blocks = ops.where(ops.equal(switches[:, :, None, :, None], corner), values[:, :, None, :, None], 0)
    return ops.reshape(blocks, (batch, 2 * height, 2 * width, channels))


def unpool_by_depth_to_space(values: tf.Tensor, switches: tf.Tensor) -> tf.Tensor:
    """Corners as groups of channels."""
    corners = [ops.where(ops.equal(switches, k), values, 0) for k in range(4)]
    return ops.depth_to_space(ops.concatenate(corners, axis=-1), 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.unpooling", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    tf.get_logger().setLevel("ERROR")
    peers = {
        name: (script, python)
        for name, script, python in (
            ("TensorFlow Addons", "tfa_unpooling.py", timing.peer("tfa")),
            ("PyTorch", "torch_unpooling.py", timing.peer("torch")),
        )
        if python is not None
    }
    results = {}
    for text in options.shape:
        results[text] = measure(_parse_shape(text), options.rounds, peers)
        print_times(text, results[text])
    timing.write(options.output, options, results)


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--shape={text}: four positive numbers B,H,W,C are wanted")
    if int(sizes[1]) % 2 or int(sizes[2]) % 2:
        raise InputError(f"--shape={text}: height and width must be even")
    return tuple(map(int, sizes))


def measure(
    shape: tuple[int, ...], rounds: int, peers: Mapping[str, tuple[str, Path]]
) -> dict[str, dict[str, dict[str, dict]]]:
    """Times every way in every mode, in turn.

    Args:
        shape: `[B, H, W, C]` of the maps that are pooled.
        rounds: How often each is timed.
        peers: Script and Python of each process, by the name of its way.

    Returns:
        `{"pooling" | "unpooling" | "both": {way: {mode: spreads of "wall_s" and "cpu_s", and "speed", both
        again as times as fast as the argmax op and `tf.scatter_nd` without XLA}}}`; what a way cannot do is
        left out.
    """
    with contextlib.ExitStack() as stack:
        measurements = _measurements(shape)
        for name, (script, python) in peers.items():
            worker = stack.enter_context(timing.Worker(script, {"shape": shape}, python))
            for what in worker.ready["measurements"]:
                kind, mode = what.split(" ", 1)
                measurements[kind, name, mode] = functools.partial(worker.ask, what)
        taken = timing.in_turn(measurements, rounds)
    for kind, way, mode in list(taken):
        other = taken.get(("unpooling", way, mode))
        if kind == "pooling" and other:
            pairs = zip(taken[kind, way, mode], other, strict=True)
            taken["both", way, mode] = [{unit: a[unit] + b[unit] for unit in timing.UNITS} for a, b in pairs]
    results: dict[str, dict[str, dict[str, dict]]] = {}
    for (kind, way, mode), entries in taken.items():
        base = taken[kind, ARGMAX, mode.removeprefix("XLA ")]
        row = results.setdefault(kind, {}).setdefault(way, {})
        row[mode] = timing.times(entries) | {"speed": timing.ratios(base, entries)}
    return results


def _measurements(shape: tuple[int, ...]) -> dict[tuple[str, str, str], Callable[[], timing.Measured]]:
    rng = np.random.default_rng(0)
    maps = tf.constant(np.maximum(rng.standard_normal(shape), 0).astype(np.float32))
    pooled, switches = MaxPooling2DWithSwitches()(maps)
    _, argmax = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID", include_batch_in_index=True)
    unpool = MaxUnpooling2D()
    ways = {
        "pooling": {
            ARGMAX: (lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID"), maps),
            "tfseg": (MaxPooling2DWithSwitches(), maps),
            "slices": (pool_by_slices, maps),
            "space_to_depth": (pool_by_space_to_depth, maps),
            "a copy": (lambda x: x * 2.0, maps),
        },
        "unpooling": {
            ARGMAX: (unpool_by_scatter, pooled, argmax),
            "tfseg": (lambda x, s: unpool((x, s)), pooled, switches),
            "broadcast": (unpool_by_broadcast, pooled, switches),
            "depth_to_space": (unpool_by_depth_to_space, pooled, switches),
            "a copy": (lambda x: x * 2.0, maps),
        },
    }
    return {
        (kind, way, mode): functools.partial(timing.measured, call)
        for kind in KINDS
        for way, (function, *operands) in ways[kind].items()
        for mode, call in _modes(function, operands).items()
    }


def _modes(function: Callable, operands: Sequence[tf.Tensor]) -> dict[str, Callable[[], None]]:
    """Returns a call of each mode in which the function can run."""

    def forward(*operands: tf.Tensor) -> tf.Tensor:
        return function(*operands)

    def both(*operands: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(operands[0])
            outputs = function(*operands)
        first = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
        return outputs, tape.gradient(first, operands[0], first)

    calls = {}
    for mode in MODES:
        part = both if "backward" in mode else forward
        compiled = tf.function(part, jit_compile=mode.startswith("XLA"))
        with contextlib.suppress(
            tf.errors.InvalidArgumentError, tf.errors.UnimplementedError
        ):  # No XLA kernel.
            compiled(*operands)
            calls[mode] = lambda compiled=compiled: _wait(compiled(*operands))
    return calls


def _wait(outputs: tf.Tensor | tuple) -> None:
    for output in tf.nest.flatten(outputs):
        output[(0,) * len(output.shape)].numpy()


def print_times(shape: str, results: dict[str, dict[str, dict[str, dict]]]) -> None:
    """Prints milliseconds and how many times as fast as the argmax op and `tf.scatter_nd` each way is."""
    for kind, ways in results.items():
        for unit, title in (("wall_s", "clock"), ("cpu_s", "processors' time")):
            print()
            rows = []
            for way, row in ways.items():
                cells = [_cell(row[mode], unit) if mode in row else "-" for mode in MODES]
                rows.append([way, *cells])
            timing.print_table([f"[{shape}] {kind}, {title}", *MODES], rows)


def _cell(found: dict, unit: str) -> str:
    return f"{1e3 * found[unit]['median']:.1f} ms, {timing.shown(found['speed'][unit], 1)}x"


if __name__ == "__main__":
    sys.exit(main())
