"""Times pooling with switches and unpooling against other ways.

All ways run in turn, round after round, in one process, so that their ratios hold although the
machine's speed drifts. A copy of the larger maps shows what moving their bytes takes. TensorFlow Addons runs
right after in its own environment, .venv-tfa, if that is there.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# TensorFlow reports at length that the argmax op has no XLA kernel; the table says so in one dash.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from keras import ops

from tfseg import cli
from tfseg.errors import InputError
from tfseg.layers import MaxPooling2DWithSwitches, MaxUnpooling2D

ROOT = Path(__file__).resolve().parents[1]
TFA_PYTHON = ROOT / ".venv-tfa" / "bin" / "python"
MODES = ("forward", "forward + backward", "XLA forward", "XLA forward + backward")


EXAMPLES = ("--rounds=5", "--shape=8,160,160,64 --output=pooling.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    shape: tuple[str, ...] = cli.flag(
        "Maps to pool, B,H,W,C; may stand several times; by default those of the official network.",
        default=("1,320,320,64", "1,160,160,128", "1,80,80,256", "1,40,40,512"),
    )
    rounds: int = cli.flag("Timed rounds; the median counts.", default=15, lower=1)
    output: str | None = cli.flag(
        "JSON file for the figures; without it, they are only printed.", default=None
    )


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
    results = {}
    for text in options.shape:
        shape = _parse_shape(text)
        results[text] = measure(shape, options.rounds)
        print_table(text, results[text])
    if options.output:
        Path(options.output).write_text(json.dumps(results, indent=2) + "\n")


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--shape={text}: four positive numbers B,H,W,C are wanted")
    if int(sizes[1]) % 2 or int(sizes[2]) % 2:
        raise InputError(f"--shape={text}: height and width must be even")
    return tuple(map(int, sizes))


def measure(shape: tuple[int, ...], rounds: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """Times every way in every mode.

    Args:
        shape: `[B, H, W, C]` of the maps that are pooled.
        rounds: How often each is timed.

    Returns:
        `{"pooling" | "unpooling": {way: {mode: median milliseconds, or None if it cannot run}}}`.
    """
    rng = np.random.default_rng(0)
    maps = tf.constant(np.maximum(rng.standard_normal(shape), 0).astype(np.float32))
    pooled, switches = MaxPooling2DWithSwitches()(maps)
    _, argmax = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID", include_batch_in_index=True)
    unpool = MaxUnpooling2D()
    ways = {
        "pooling": {
            "argmax op": (lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "VALID"), maps, None),
            "tfseg": (MaxPooling2DWithSwitches(), maps, None),
            "slices": (pool_by_slices, maps, None),
            "space_to_depth": (pool_by_space_to_depth, maps, None),
            "a copy": (lambda x: x * 2.0, maps, None),
        },
        "unpooling": {
            "scatter_nd": (unpool_by_scatter, pooled, argmax),
            "tfseg": (lambda x, s: unpool((x, s)), pooled, switches),
            "broadcast": (unpool_by_broadcast, pooled, switches),
            "depth_to_space": (unpool_by_depth_to_space, pooled, switches),
            "a copy": (lambda x: x * 2.0, maps, None),
        },
    }
    times = {kind: _time_in_turn(named, rounds) for kind, named in ways.items()}
    if TFA_PYTHON.exists():
        times["unpooling"]["TensorFlow Addons"] = _time_tfa(shape, rounds)
    return times


def _time_in_turn(named: dict[str, tuple], rounds: int) -> dict[str, dict[str, float | None]]:
    calls = {}
    for name, (function, x, indices) in named.items():
        operands = (x,) if indices is None else (x, indices)
        for mode, call in _modes(function, operands).items():
            try:
                call()
                call()
                calls[name, mode] = call
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
                continue  # No XLA kernel.
    seconds = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    medians = {key: 1e3 * float(np.median(values)) for key, values in seconds.items()}
    return {name: {mode: medians.get((name, mode)) for mode in MODES} for name in named}


def _modes(function: Callable, operands: tuple) -> dict[str, Callable]:
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
        calls[mode] = lambda compiled=compiled: _wait(compiled(*operands))
    return calls


def _wait(outputs: tf.Tensor | tuple) -> None:
    for output in tf.nest.flatten(outputs):
        output[(0,) * len(output.shape)].numpy()


def _time_tfa(shape: tuple[int, ...], rounds: int) -> dict[str, float | None]:
    script = Path(__file__).with_name("tfa_unpooling.py")
    printed = subprocess.run(
        [TFA_PYTHON, script, ",".join(map(str, shape)), str(rounds)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {**dict.fromkeys(MODES), **json.loads(printed.splitlines()[-1])}


def print_table(shape: str, times: dict[str, dict[str, dict[str, float | None]]]) -> None:
    """Prints milliseconds, and how many times faster than the first way without XLA each is."""
    print(f"\nmaps [{shape}] float32: median ms (times faster than the first way without XLA)")
    sums = {
        "argmax op + scatter_nd": (times["pooling"]["argmax op"], times["unpooling"]["scatter_nd"]),
        "tfseg": (times["pooling"]["tfseg"], times["unpooling"]["tfseg"]),
    }
    together = {
        name: {mode: _add(first[mode], second[mode]) for mode in MODES}
        for name, (first, second) in sums.items()
    }
    for kind, ways in {**times, "pooling + unpooling": together}.items():
        print(f"{kind:24}" + "".join(f"{mode:>24}" for mode in MODES))
        base = next(iter(ways.values()))
        for name, row in ways.items():
            cells = []
            for mode in MODES:
                ratio = row[mode] and base[mode.removeprefix("XLA ")] / row[mode]
                cells.append(f"{row[mode]:.1f} ({ratio:.1f}x)" if row[mode] else "-")
            print(f"  {name:22}" + "".join(f"{cell:>24}" for cell in cells))


def _add(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


if __name__ == "__main__":
    sys.exit(main())
