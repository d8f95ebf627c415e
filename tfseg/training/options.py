"""What a training is asked for: the flags of `tfseg.train`, read without TensorFlow."""

import dataclasses
from typing import Any, Literal

from tfseg import cli
from tfseg.config import ModelConfig, ModelName, PresetName, Stage, preset
from tfseg.data.bad_records import OnBadRecord
from tfseg.errors import InputError

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy's generator of Keras takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """One stage of a training; each field is a flag of `tfseg.train`.

    A new flag is a new field here and whatever reads it in `tfseg.training.loop`. Fields of `ModelConfig` are
    flags by themselves.

    ```python
    >>> options = TrainingOptions(data_dir="records", model_dir="model", stage="joint", preset="tiny")
    >>> options.model_config(num_labels=20).factors
    128

    ```
    """

    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    model_dir: str = cli.flag("Directory of the model; each stage gets a folder.")
    stage: Stage = cli.flag("What to train.")

    model: ModelName = cli.flag("Segmentation network.", default="transfernet")
    preset: PresetName = cli.flag("Shape of the network.", default="official")
    source_split: str = cli.flag("Records with masks; empty for none.", default="source_train")
    target_split: str = cli.flag("Records with image labels only; empty for none.", default="target_train")
    init_dir: str | None = cli.flag(
        "Model directory of the earlier stages; without it, --model_dir.", default=None, exists="folder"
    )
    encoder_weights: str = cli.flag(
        "Where the encoder starts: imagenet (Keras downloads it); the path of a VGG-16 as Keras (.h5, "
        ".keras), torchvision (.safetensors), Caffe (.caffemodel) or NumPy (.npz) store it; none; or "
        "finetuned (stage encoder of --init_dir).",
        default="imagenet",
    )
    frozen_blocks: int = cli.flag(
        "Stages encoder and classifier: first blocks of the encoder that are not trained.",
        default=0,
        advanced=True,
        lower=0,
    )
    steps: int = cli.flag("Updates of the stage in all.", default=15000, lower=1)
    batch_size: int = cli.flag("Pairs of an update, half of each domain.", default=64, lower=1)
    micro_batch_size: int = cli.flag(
        "Pairs computed at once on a device; 0: its whole share.", default=0, lower=0
    )
    learning_rate: float = cli.flag("Adam's step size, fixed over the stage.", default=5e-4, lower=0.0)
    seed: int = cli.flag(
        "Seed of weights, shuffling, crops and mirroring.", default=0, lower=0, upper=MAX_SEED
    )
    resize_to: int | None = cli.flag(
        "Side before the random crop, pixels; without it, 330/320 of the image size.",
        default=None,
        lower=1,
        upper=16384,
    )
    mirror: bool = cli.flag("Mirror half of the examples.", default=True)
    checkpoint_every: int = cli.flag("Updates between checkpoints.", default=1000, lower=1)
    keep_checkpoints: int = cli.flag("Newest checkpoints to keep.", default=2, lower=1)

    label_loss: Literal["multi_label", "softmax"] = cli.flag(
        "Stages encoder and classifier: a sigmoid for each label, or a softmax over the pair's label.",
        default="multi_label",
        advanced=True,
    )
    val_split: str = cli.flag(
        "Records to evaluate on while training; they must not be trained on. Empty for none.", default=""
    )
    evaluate_every: int = cli.flag("Updates between evaluations on --val_split.", default=500, lower=1)
    evaluate_images: int = cli.flag("Images of --val_split to evaluate on.", default=100, lower=1)
    keep_best: bool = cli.flag(
        "Keep the checkpoint that is best on --val_split in STAGE/best, for --checkpoint=N.", default=False
    )

    lr_multipliers: bool = cli.flag(
        "The authors' factors: biases x2, class score x10.", default=True, advanced=True
    )
    attention_rate: float = cli.flag(
        "Stage joint: factor on the learning rate of what equation (6) trains, attention and classification.",
        default=1.0,
        advanced=True,
        lower=0.0,
    )
    seg_weight: float = cli.flag(
        "lambda of equation (9), on the mean over source pairs.", default=1.0, advanced=True, lower=0.0
    )
    seg_mean: Literal["global", "micro_batch"] = cli.flag(
        "What the segmentation loss is averaged over.", default="global", advanced=True
    )
    source_fraction: float = cli.flag(
        "Share of the source images to train on, in (0, 1].", default=1.0, advanced=True
    )
    subset_seed: int = cli.flag(
        "Seed that chooses those images, and those of --target_masks.", default=0, advanced=True, lower=0
    )
    target_masks: int = cli.flag(
        "Target images whose masks are used, too.", default=0, advanced=True, lower=0
    )
    on_bad_record: OnBadRecord = cli.flag(
        "Records that are damaged or cannot be decoded: stop, or read the next pair in their place, counted.",
        default="fail",
        advanced=True,
    )
    summary_every: int = cli.flag("Updates between points of the curves.", default=20, advanced=True, lower=1)
    pictures_every: int = cli.flag("Updates between pictures.", default=500, advanced=True, lower=1)
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = cli.flag(
        "Precision of layers; mixed_float16 scales the loss, for small gradients would be 0.",
        default="float32",
        advanced=True,
    )
    jit_compile: bool = cli.flag(
        "Compile the computation of a micro-batch by XLA.", default=False, advanced=True
    )
    cpu_devices: int = cli.flag(
        "Split the CPU into so many logical devices; 0: leave it.", default=0, advanced=True, lower=0
    )
    network: dict[str, Any] = cli.overrides(ModelConfig, "Overrides the preset. ", skip=("num_labels",))

    def __post_init__(self) -> None:
        """Refuses what cannot be trained on."""
        if self.keep_best and not self.val_split:
            raise InputError("--keep_best: the best by which records? Give a --val_split")
        if self.val_split and self.val_split in (self.source_split, self.target_split):
            raise InputError(f"--val_split={self.val_split}: is trained on; give other records")
        if not self.source_split and not self.target_split:
            raise InputError("--source_split and --target_split are both empty: there is nothing to train on")
        if self.stage == "joint" and not self.source_split:
            raise InputError("--stage=joint: the decoder is trained on masks; give a --source_split")

    def model_config(self, num_labels: int) -> ModelConfig:
        """Returns the preset with what the flags change of it."""
        return preset(self.preset).replace(num_labels=num_labels, **self.network)
