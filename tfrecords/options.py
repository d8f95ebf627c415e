"""The flags that all builders of records share."""

import dataclasses

from tfseg import cli

from .choices import Exif, Malformed
from .pool import default_workers


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuilderOptions:
    """What is done with bad files, and how shards are written; each field is a flag."""

    malformed: Malformed = cli.flag(
        "Malformed annotations or rows, and images or masks that are missing or damaged: refuse and tell "
        "them all, or leave them out, counted.",
        default="fail",
    )
    exif: Exif = cli.flag(
        "Images that EXIF says to turn: refuse them, turn them upright (they were annotated as viewers show "
        "them), or leave them as stored.",
        default="error",
    )
    num_shards: int = cli.flag("Shards of a split; 0: one per 128 images.", default=0)
    workers: int = cli.flag("Processes.", default=default_workers(), advanced=True, lower=1)
    runner: str = cli.flag(
        "Apache Beam runner whose workers make the shards in the place of --workers, such as DirectRunner or "
        "FlinkRunner (extra [beam]); words after -- are its flags. All must see the files under one path.",
        default="",
        advanced=True,
    )
