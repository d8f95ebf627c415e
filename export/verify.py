"""Proves that a copy of an export is whole: checks its files and replays the calls recorded with it."""

import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfseg import cli
from tfseg.commands import called
from tfseg.errors import InputError

if TYPE_CHECKING:
    from .warmup import Call

EXAMPLES = ("runs/demo/export", "/models/tfseg/7 --tolerance=1e-4")
MASK_TOLERANCE = 0.001
"""Largest share of a mask's pixels that may differ: those where the probability is at the threshold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Which export is verified; each field but `path` is a flag."""

    path: tuple[str, ...] = cli.words("VERSION_DIR|DIR", at_least=1, at_most=1)
    tolerance: float = cli.flag(
        "Largest difference of a number from the recorded one; another processor may need 1e-4.",
        default=1e-5,
        lower=0.0,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.verify", __doc__, VerifyOptions, _run, argv, EXAMPLES)


def _run(options: VerifyOptions) -> None:
    (path,) = options.path
    with cli.working("loading the export and calling it"):
        verified = verify(Path(path), options.tolerance)
    for name, difference in verified.items():
        print(f"{name:16} {difference:.1e}")
    print(f"{path}: whole; {len(verified)} signatures give what they gave when they were exported")


def verify(path: Path, tolerance: float = 1e-5) -> dict[str, float]:
    """Checks the files of an export and replays its recorded calls.

    Args:
        path: A version directory, or the folder of versions, of which the newest is taken.
        tolerance: Largest difference of a number from the recorded one. Of masks, a thousandth of the pixels
            may differ.

    Returns:
        The largest difference of each signature: of numbers, and of masks as a share of pixels.

    Raises:
        InputError: If a file is missing or changed, a signature is missing, or an answer differs.
    """
    import tensorflow as tf

    from tfseg.model_dir import find_saved_model

    from . import manifest, warmup

    version_dir = find_saved_model(path)
    if version_dir is None:
        raise InputError(f"{path}: holds no SavedModel; {called('export.saved_model')} writes one")
    manifest.check(version_dir)
    try:
        signatures = tf.saved_model.load(str(version_dir)).signatures
    except Exception as error:  # TensorFlow raises many kinds for damaged files.
        raise InputError(f"{version_dir}: cannot be loaded as a SavedModel ({error})") from error
    found = {}
    for call in warmup.read(version_dir):
        if call.signature not in signatures:
            raise InputError(f"{version_dir}: the signature {call.signature} is missing")
        answer = warmup.call(signatures[call.signature], call.inputs)
        found[call.signature] = _compare(version_dir, call, answer, tolerance)
    return found


def _compare(version_dir: Path, call: "Call", answer: dict[str, np.ndarray], tolerance: float) -> float:
    worst = 0.0
    for name, recorded in call.outputs.items():
        where = f"{version_dir}: {call.signature}: {name}"
        given = answer.get(name)
        if given is None or given.shape != recorded.shape:
            shape = "missing" if given is None else f"of shape {list(given.shape)}"
            raise InputError(f"{where}: is {shape}; recorded is shape {list(recorded.shape)}")
        is_mask = recorded.dtype == np.uint8 or name.endswith("_bytes")
        difference, allowed = (
            difference_of(recorded, given, is_mask),
            MASK_TOLERANCE if is_mask else tolerance,
        )
        if not difference <= allowed:
            raise InputError(
                f"{where}: differs from what was recorded by {difference:.1e}, above {allowed:.1e}"
            )
        worst = max(worst, difference)
    return worst


def difference_of(recorded: np.ndarray, given: np.ndarray, is_mask: bool) -> float:
    """Returns the largest difference of numbers, or the largest share of pixels that differ in a mask."""
    if recorded.dtype == object and is_mask:
        pairs = zip(map(_pixels, recorded.ravel()), map(_pixels, given.ravel()), strict=True)
        return max(1.0 if a.shape != b.shape else float((a != b).mean()) for a, b in pairs)
    if recorded.dtype == object or is_mask:
        return float((recorded != given).mean())
    return float(np.abs(recorded.astype(np.float64) - given.astype(np.float64)).max(initial=0.0))


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        return np.array(opened)


if __name__ == "__main__":
    sys.exit(main())
