"""How a split is evaluated: flags of `tfseg.evaluate`, read without TensorFlow."""

import dataclasses
from typing import Literal

from tfseg import cli
from tfseg.data.bad_records import OnBadRecord
from tfseg.errors import InputError
from tfseg.inference.options import CrfOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a split is evaluated.

    ```python
    >>> Settings(labels="ground_truth").method
    'decoder'

    ```
    """

    labels: Literal["predicted", "ground_truth"] = cli.flag(
        "Whether the classifier names the labels of an image or its mask does.", default="predicted"
    )
    method: Literal["decoder", "attention", "labels"] = cli.flag(
        "The network's masks; or the control that thresholds its attention maps (the best of both maps "
        "and of thresholds 0.1 to 0.9 counts); or the classifier's labels alone (mAP, F1), which needs "
        "neither masks nor a segmentation network.",
        default="decoder",
    )
    batch_size: int = cli.flag("Images, and (image, label) pairs, at once.", default=8, lower=1)
    save_comp6: bool = cli.flag(
        "Write label maps as results/VOC2012/Segmentation/comp6_val_cls/ID.png (val: from target_val).",
        default=False,
        advanced=True,
    )
    on_bad_record: OnBadRecord = cli.flag(
        "Records that are damaged or cannot be decoded: stop, or leave them out, counted in metrics.json.",
        default="fail",
        advanced=True,
    )
    crf: CrfOptions = cli.group(CrfOptions)

    def __post_init__(self) -> None:
        """Refuses what does not go together."""
        if self.method == "attention" and (self.crf.crf != "none" or self.save_comp6):
            raise InputError("method=attention: goes without crf and save_comp6")
