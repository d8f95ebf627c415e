"""The flags of a `Segmenter`, the same for `tfseg.evaluate` and `tfseg.predict`."""

from typing import TYPE_CHECKING

from absl import flags

from tfseg.inference.labels import THRESHOLD
from tfseg.inference.merge import BACKGROUND_FACTOR

if TYPE_CHECKING:
    from tfseg.segmenter import Segmenter


def define() -> None:
    """Defines the flags; to be called at a command's module level."""
    flags.DEFINE_string("model_dir", None, "Model directory of tfseg.train, or a SavedModel.", required=True)
    flags.DEFINE_integer("batch_size", 8, "Images, and (image, label) pairs, at once.", lower_bound=1)
    flags.DEFINE_enum(
        "classifier_stage",
        "classifier",
        ["classifier", "encoder"],
        "Stage of --model_dir whose network predicts labels: the separate classifier, or stage 0.",
    )
    flags.DEFINE_enum(
        "bgr_mean",
        "training",
        ["training", "inference"],
        "Mean that the networks subtract: that of their training, or the authors' inference script's, "
        "which has more digits.",
    )
    flags.DEFINE_float(
        "label_threshold", THRESHOLD, "Probability from which a label is predicted, 0 to 1.", 0.0, 1.0
    )
    flags.DEFINE_float(
        "background_factor",
        BACKGROUND_FACTOR,
        "Factor on the background's probability; 1 changes nothing.",
        lower_bound=0.0,
    )


def load(values: flags.FlagValues, label_domain: str) -> "Segmenter":
    """Returns the segmenter that the flags describe.

    Args:
        values: The parsed flags.
        label_domain: Which labels may be predicted: `target`, `source` or `all`.

    Raises:
        InputError: If there is no such model.
    """
    # Here, for it imports TensorFlow: the CRF's processes import the commands too, and need none of it.
    from tfseg.segmenter import Segmenter

    return Segmenter.load(
        values.model_dir,
        bgr_mean=values.bgr_mean,
        classifier_stage=values.classifier_stage,
        label_domain=label_domain,
        label_threshold=values.label_threshold,
        background_factor=values.background_factor,
    )
