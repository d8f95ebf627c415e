"""The model directory of a running training: ours alone, and a full disk names the last checkpoint."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tfseg.config import STAGES
from tfseg.errors import InputError
from tfseg.files import refusal, require_output_folder
from tfseg.folders import sole_writer
from tfseg.model_dir import BEST, saved_checkpoints


@contextlib.contextmanager
def training_folder(model_dir: str | os.PathLike[str], name: str, *stages: str) -> Iterator[None]:
    """Keeps a model directory to this process while the block trains stages in it.

    Args:
        model_dir: The directory; made if absent.
        name: Stands before it in messages, such as `--model_dir=`.
        *stages: What is trained.

    Raises:
        InputError: Another process writes there; or the system refuses a file, as on a full disk.
    """
    model_dir = Path(model_dir)
    parts = [part for stage in STAGES for part in (stage, f"{stage}/{BEST}")]
    try:
        with sole_writer(model_dir, name, parts):
            for stage in stages:
                require_output_folder(model_dir / stage, name)
            yield
    except Exception as error:
        where = model_dir / stages[0] if len(stages) == 1 else model_dir
        refused = refusal(error, getattr(error, "filename", None) or where)
        if refused is None:
            raise
        newest = [_newest(model_dir / stage) for stage in stages]
        raise InputError(f"{refused}; last whole checkpoint: {', '.join(newest)}") from error


def _newest(stage_dir: Path) -> str:
    saved = saved_checkpoints(stage_dir)
    return saved[-1].rsplit("-", 1)[1] if saved else "none"
