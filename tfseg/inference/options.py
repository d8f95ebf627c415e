"""The options of a `Segmenter` and of the CRF, each written down once: fields here, flags of the commands."""

import dataclasses
import os
from typing import Any, Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.inference.crf import CrfParameters, crf_parameters
from tfseg.inference.postprocessing import BACKGROUND_FACTOR, THRESHOLD


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """Which weights of a model segment, and how their answers become label maps.

    ```python
    >>> SegmenterOptions(label_threshold=0.5).background_factor
    0.5

    ```
    """

    label_domain: Literal["target", "source", "all"] = cli.flag(
        "Which labels may be predicted.", default="target"
    )
    label_threshold: float = cli.flag(
        "Probability from which a label is predicted, 0 to 1.", default=THRESHOLD
    )
    checkpoint: int | None = cli.flag(
        "Takes the weights after this update instead of the newest, where --keep_checkpoints kept them.",
        default=None,
    )
    classifier_stage: Literal["classifier", "encoder"] = cli.flag(
        "Stage whose network predicts labels: the separate classifier, or stage 0.",
        default="classifier",
        advanced=True,
    )
    bgr_mean: Literal["training", "inference"] = cli.flag(
        "Mean that the networks subtract: that of their training, or the authors' inference script's, "
        "which has more digits.",
        default="training",
        advanced=True,
    )
    background_factor: float = cli.flag(
        "Factor on the background's probability; 1 changes nothing.",
        default=BACKGROUND_FACTOR,
        advanced=True,
    )

    def __post_init__(self) -> None:
        """Refuses what no label map can be made with."""
        if not 0 <= self.label_threshold <= 1:
            raise InputError(f"label_threshold={self.label_threshold}: must be in 0 to 1")
        if not self.background_factor > 0:
            raise InputError(f"background_factor={self.background_factor}: must be above 0")

    def require_unchanged_network(self, path: object) -> None:
        """Refuses options that ask an export for other weights than those in it.

        Raises:
            InputError: If checkpoint, mean or classifier is to be another.
        """
        if (self.checkpoint, self.classifier_stage, self.bgr_mean) != (None, "classifier", "training"):
            raise InputError(
                f"{path}: checkpoint, mean and classifier of a SavedModel are fixed; give its model_dir"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrfOptions:
    """Whether and how a fully connected CRF refines label maps.

    ```python
    >>> CrfOptions(crf="none").crf_parameters() is None
    True

    ```
    """

    crf: Literal["none", "official", "symmetric"] = cli.flag(
        "Fully connected CRF: none; official, the authors' unnormalised kernels; or symmetric, the "
        "same with normalised kernels, which keeps thin objects.",
        default="none",
    )
    crf_processes: int = cli.flag(
        "Images that the CRF refines at once, each in a process of its own.",
        default=os.cpu_count() or 1,
        advanced=True,
        lower=1,
    )
    parameters: dict[str, Any] = cli.overrides(
        CrfParameters, "Overrides a parameter of the CRF. ", prefix="crf_"
    )

    def crf_parameters(self) -> CrfParameters | None:
        """Returns the CRF's parameters; None for crf=none.

        Raises:
            InputError: If a value is not allowed or pydensecrf is not installed.
        """
        return crf_parameters(self.crf, **self.parameters)
