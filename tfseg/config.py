"""The shape of a network, as one frozen value; every number of SPEC 3 and 12 that a model depends on.

Training hyperparameters are not here: they are flags of `tfseg.train`, kept in `configs/`.
"""

import dataclasses
import json
import reprlib
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from tfseg.errors import InputError

Stage = Literal["encoder", "classifier", "attention", "joint"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""What can be trained, in this order; `tfseg.training.stages` says how."""
CLASSIFIER_STAGES = STAGES[:2]
ModelName = Literal["transfernet", "baselinenet", "decouplednet"]
PresetName = Literal["official", "paper", "tiny"]

# Caffe's mean of the ImageNet training images, channels B, G, R (training prototxts, SPEC 12 row 16).
BGR_MEAN_TRAIN = (104.008, 116.669, 122.675)
# The authors' inference script writes the same mean with more digits.
BGR_MEAN_INFERENCE = (104.00698793, 116.66876762, 122.67891434)


class Range(NamedTuple):
    """The numbers that a field may have; it stands in the field's type.

    Attributes:
        lower: Smallest.
        upper: Largest.
        below: Whether `upper` itself is too large.
        reason: Behind the message, where the limit needs one.
    """

    lower: float
    upper: float
    below: bool = False
    reason: str = ""

    def __str__(self) -> str:
        """As in `must be a number from 0 to 255`."""
        return f"{self.lower:g} to {'below ' * self.below}{self.upper:g}{self.reason}"

    def holds(self, number: float) -> bool:
        """Whether a number lies in it; NaN does not."""
        return self.lower <= number <= self.upper and not (self.below and number == self.upper)


MAX_BLOCKS = 13
Width = Annotated[int, Range(1, 65536)]
Positive = Annotated[float, Range(1e-6, 1e6)]
Mean = Annotated[float, Range(0, 255)]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What `build_transfernet` and the baselines are built from.

    Attributes:
        image_size: Side of the square input, in pixels. `W_feat` sees the whole flattened map, so it
            is fixed; a multiple of 2 to the number of poolings.
        image_fit: How an image becomes a square: `pad` puts black at its bottom or right, as the authors do;
            `stretch` resizes each side to the square's, so that every position of the map shows the image.
        num_labels: L, length of the one-hot label vector; label ids run from 1 to L.
        encoder_blocks: (convolutions, channels) of each VGG block; a 2x2 pooling with switches
            follows every block but the last.
        encoder_padding: What the encoder's convolutions see beyond the map's edge: VGG's `zero`, or
            `symmetric`, the mirrored map, so that features do not tell that they are at the border.
        feature_norm: What happens to the last feature map before everything below it: `scale` multiplies it,
            as the authors do; `standardize` brings each channel to zero mean and unit variance first.
        feature_scale: Factor on that map (SPEC 3.1).
        unit_features: Whether the attention sees each position's features at length 1, so that densified
            attention is a cosine and no position wins by its norm.
        factors: d, number of factors of the 3-way gate (equation 4).
        gating: How feature and label embedding meet: the paper's product, or an ablation.
        combined_embed: Whether the code's extra dense layer with ReLU precedes `W_att` (SPEC 12 row 1).
        label_queries: Whether each label scores positions by their own features, too: `alpha_i += q_l A_i`
            (dot-product attention), which is 0 before it is trained. `tfseg.adapt` gives new labels one.
        decoder_input: `densified` (equation 7) or, for ablation, the sparse attention itself.
        joint_gradient: Whether the segmentation loss reaches the attention (equation 9).
        classification_units: Width of the dense layer of f_cls.
        classifier_units: Width of fc6 and fc7 of the whole-image classifier and the baselines; 0 leaves them
            out, so that score maps are linear in the features (class activation maps).
        score_pool: How a score map becomes a logit: its maximum or its mean.
        classifier_dropout: Dropout rate after fc6 and fc7.
        bgr_mean: Mean that is subtracted from the B, G, R channels.
        decoder_stddev: Standard deviation of the Gaussian that initialises decoder and `att_w`.
        decoder_init: `gaussian` (SPEC 12 row 12) or `he` for networks without a pretrained encoder.
    """

    image_size: Annotated[int, Range(1, 8192)] = 320
    image_fit: Literal["pad", "stretch"] = "pad"
    num_labels: Annotated[int, Range(1, 254, reason=" (255 is the ignore label)")] = 80
    encoder_blocks: tuple[tuple[Annotated[int, Range(1, 64)], Width], ...] = (
        (2, 64), (2, 128), (3, 256), (3, 512), (3, 512)
    )  # fmt: skip
    encoder_padding: Literal["zero", "symmetric"] = "zero"
    feature_norm: Literal["scale", "standardize"] = "scale"
    feature_scale: Positive = 0.004
    unit_features: bool = False
    factors: Width = 1024
    gating: Literal["multiplicative", "additive", "concat"] = "multiplicative"
    combined_embed: bool = True
    label_queries: bool = False
    decoder_input: Literal["densified", "attention"] = "densified"
    joint_gradient: bool = True
    classification_units: Width = 512
    classifier_units: Annotated[int, Range(0, 65536)] = 4096
    score_pool: Literal["max", "mean"] = "max"
    classifier_dropout: Annotated[float, Range(0, 1, below=True)] = 0.5
    bgr_mean: tuple[Mean, Mean, Mean] = BGR_MEAN_TRAIN
    decoder_init: Literal["gaussian", "he"] = "gaussian"
    decoder_stddev: Annotated[float, Range(0, 1e6)] = 0.01

    def __post_init__(self) -> None:
        """Refuses values of another type or out of range, and shapes that no network can have."""
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            for place, value, allowed in _faults(hint, getattr(self, name), name):
                raise InputError(f"{place}={reprlib.repr(value)}: {allowed}")
        if not 1 <= len(self.encoder_blocks) <= MAX_BLOCKS:
            raise InputError(
                f"encoder_blocks: {len(self.encoder_blocks)} blocks; allowed are 1 to {MAX_BLOCKS}"
            )
        if self.image_size % self.stride:
            raise InputError(
                f"image_size={self.image_size}: must be a positive multiple of {self.stride}, "
                f"for the encoder halves it {self.num_poolings} times"
            )

    @property
    def num_poolings(self) -> int:
        """Number of poolings with switches, and of unpoolings."""
        return len(self.encoder_blocks) - 1

    @property
    def stride(self) -> int:
        """Input pixels per feature map position, along one side."""
        return 2**self.num_poolings

    @property
    def map_size(self) -> int:
        """Side of the feature map; M of the paper is its square."""
        return self.image_size // self.stride

    @property
    def feature_channels(self) -> int:
        """D, channels of the feature map."""
        return self.encoder_blocks[-1][1]

    @property
    def classifier_kernel(self) -> int:
        """Side of fc6: 7 on the 10x10 pool5 of a 320x320 image, which leaves 4x4 score maps; 1 without."""
        return max(self.map_size // 2 - 3, 1) if self.classifier_units else 1

    @property
    def score_map_size(self) -> int:
        """Side of the score maps."""
        return self.map_size // 2 - self.classifier_kernel + 1

    def replace(self, **changes: Any) -> "ModelConfig":
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Returns the configuration as JSON text, the form stored beside checkpoints."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, origin: str = "config.json") -> "ModelConfig":
        """Reads what `to_json` wrote.

        Args:
            text: JSON text.
            origin: File name for the error message.

        Raises:
            InputError: If the text is no JSON object, or has a field that is not known, of another type or
                out of range.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError(f"must be an object of fields, found {reprlib.repr(values)}")
            known = [field.name for field in dataclasses.fields(cls)]
            if unknown := sorted(set(values) - set(known)):
                raise ValueError(f"unknown field {unknown[0]!r}; allowed are {', '.join(known)}")
            for name in ("encoder_blocks", "bgr_mean"):  # Others may be younger than the file.
                if name not in values:
                    raise ValueError(f"the field {name} is missing")
            return cls(**{name: _to_tuple(value) for name, value in values.items()})
        except (ValueError, RecursionError) as error:
            raise InputError(f"{origin}: not a model configuration of this version: {error}") from error


def _faults(hint: Any, value: Any, place: str) -> Iterator[tuple[str, Any, str]]:
    """Yields what of a value does not have the annotated type: its place, itself, what is allowed."""
    plain, allowed = hint, None
    if get_origin(hint) is Annotated:
        plain, allowed = get_args(hint)
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            yield place, value, f"allowed are {', '.join(get_args(plain))}"
    elif get_origin(plain) is tuple:
        inner = get_args(plain)
        wanted = f"{len(inner)} values" if inner[-1] is not ... else "a list"
        if not isinstance(value, tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            yield place, value, f"must be {wanted}"
            return
        for index, element in enumerate(value):
            yield from _faults(inner[0 if inner[-1] is ... else index], element, f"{place}[{index}]")
    elif plain is bool:
        if not isinstance(value, bool):
            yield place, value, "must be true or false"
    else:
        kind = "a whole number" if plain is int else "a number"
        numbers = int if plain is int else (int, float)
        if not isinstance(value, numbers) or isinstance(value, bool) or not allowed.holds(value):
            yield place, value, f"must be {kind} from {allowed}"


def _to_tuple(value: Any) -> Any:
    return tuple(map(_to_tuple, value)) if isinstance(value, list) else value


_OFFICIAL = ModelConfig()
_PRESETS = {
    # All values of the authors' code: the only complete recipe (SPEC 15).
    "official": _OFFICIAL,
    # Equation 4 as printed: no extra layer before W_att.
    "paper": _OFFICIAL.replace(combined_embed=False),
    # The same structure for CPUs. Its encoder starts from random weights on pixels of +-128, so that
    # features must be brought to O(1), else the spatial softmax saturates. 44 of its 144 positions are at
    # the border, where zeros give so shallow a network features that tell the label where it looks.
    "tiny": ModelConfig(
        image_size=96,
        num_labels=20,
        encoder_blocks=((2, 16), (2, 32), (2, 64), (2, 128)),
        encoder_padding="symmetric",
        feature_scale=1 / 64,
        factors=128,
        classification_units=128,
        classifier_units=256,
        classifier_dropout=0.0,
        decoder_init="he",
    ),
}


def preset(name: str) -> ModelConfig:
    """Returns the frozen configuration of a preset.

    Args:
        name: `official`, `paper` or `tiny`.

    Raises:
        InputError: If there is no such preset.
    """
    if name not in _PRESETS:
        raise InputError(f"preset {name!r}: allowed are {', '.join(_PRESETS)}")
    return _PRESETS[name]
