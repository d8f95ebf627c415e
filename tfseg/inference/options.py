"""The options of a `Segmenter` and of the CRF: flags that `tfseg.evaluate` and `tfseg.predict` share."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Literal

from tfseg import cli
from tfseg.inference.crf import CrfParameters, crf_parameters
from tfseg.inference.labels import THRESHOLD
from tfseg.inference.merge import BACKGROUND_FACTOR

if TYPE_CHECKING:
    from tfseg.segmenter import Segmenter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """Which network segments, and how its answers become label maps.

    ```python
    SegmenterOptions(model_dir="model", label_threshold=0.5).load(label_domain="target").segment("cat.jpg")
    ```
    """

    model_dir: str = cli.flag("Model directory of tfseg.train, or a SavedModel.", exists="folder")
    batch_size: int = cli.flag("Images, and (image, label) pairs, at once.", default=8, lower=1)
    label_threshold: float = cli.flag(
        "Probability from which a label is predicted, 0 to 1.", default=THRESHOLD, lower=0.0, upper=1.0
    )
    classifier_stage: Literal["classifier", "encoder"] = cli.flag(
        "Stage of --model_dir whose network predicts labels: the separate classifier, or stage 0.",
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
        lower=0.0,
    )

    def load(self, label_domain: str) -> "Segmenter":
        """Returns the segmenter.

        Args:
            label_domain: Which labels may be predicted: `target`, `source` or `all`.

        Raises:
            InputError: If there is no such model.
        """
        # Here, for it imports TensorFlow: the CRF's processes import the commands too, and need none of it.
        from tfseg.segmenter import Segmenter

        return Segmenter.load(
            self.model_dir,
            bgr_mean=self.bgr_mean,
            classifier_stage=self.classifier_stage,
            label_domain=label_domain,
            label_threshold=self.label_threshold,
            background_factor=self.background_factor,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrfOptions:
    """Whether and how a fully connected CRF refines label maps.

    ```python
    CrfOptions(crf="official", parameters={"iterations": 5}).crf_parameters()
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
