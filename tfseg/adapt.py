"""Adds categories to a trained network by image labels alone.

The records' label map is that of the old model with the new categories behind it. By default only the new
categories' rows of the attention, its classification and the label classifier are trained: masks of old
categories stay as they were, bit by bit. Images without a new category tell what is not it: those of other
new ones, and with --rehearsal_dir those that the network was trained on. An interrupted run goes on from its
last checkpoint.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.training.folder import training_folder
from tfseg.training.options import TrainingOptions

EXAMPLES = (
    "--model_dir=runs/mine --output_dir=runs/adapted --data_dir=new_records --rehearsal_dir=records",
    "--model_dir=runs/mine --output_dir=runs/adapted --data_dir=new_records --rehearsal_dir=records "
    "--train=attention",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """What is added to which network; each field is a flag."""

    model_dir: str = cli.flag("Model directory of the trained network; it is only read.", exists="folder")
    output_dir: str = cli.flag("Model directory to write.")
    train: Literal["new", "attention"] = cli.flag(
        "What learns: the rows of the new categories alone, so that old masks keep their bits; or all of the "
        "attention.",
        default="new",
    )
    classifier_steps: int = cli.flag(
        "Updates of the label classifier, where there is one.", default=200, lower=1
    )
    rehearsal_dir: str | None = cli.flag(
        "Records of the old categories to mix in; no image of theirs may show a new one.",
        default=None,
        exists="folder",
    )
    rehearsal_splits: tuple[str, ...] = cli.flag(
        "Splits of --rehearsal_dir.", default=("source_train", "target_train"), separator=","
    )
    rehearsal_share: float = cli.flag("Share of old pairs, above 0 and below 1.", default=0.5)
    training: TrainingOptions = cli.group(
        TrainingOptions,
        skip=(
            "model_dir", "stage", "model", "preset", "network", "source_split", "source_fraction",
            "subset_seed", "target_masks", "init_dir", "encoder_weights", "frozen_blocks", "label_loss",
            "attention_rate", "seg_weight", "seg_mean",
        ),
        model_dir="",
        stage="joint",
        steps=100,
        batch_size=32,
        learning_rate=0.01,
        lr_multipliers=False,
        checkpoint_every=100,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuses to write over the network that it starts from."""
        if Path(self.output_dir).resolve() == Path(self.model_dir).resolve():
            raise InputError("--output_dir: is --model_dir; give another, the old model is kept")
        if not 0 < self.rehearsal_share < 1:
            raise InputError(f"--rehearsal_share={self.rehearsal_share}: must be above 0 and below 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.adapt", __doc__, AdaptOptions, _run, argv, EXAMPLES)


def _run(options: AdaptOptions) -> None:
    with training_folder(options.output_dir, "--output_dir=", "joint", "classifier"):
        _adapt(options)


def _adapt(options: AdaptOptions) -> None:
    from tfseg.data.records import Split
    from tfseg.model_dir import read_model_dir
    from tfseg.training.adaptation import Adaptation, always_shown
    from tfseg.training.loop import train

    old = read_model_dir(options.model_dir)
    splits = options.rehearsal_splits if options.rehearsal_dir else ()
    adaptation = Adaptation(
        old=old,
        train_attention=options.train == "attention",
        rehearsal=tuple(Split.load(options.rehearsal_dir, name) for name in splits),
        rehearsal_share=options.rehearsal_share,
        flags=tuple(sorted(cli.flag_lines(options))),
    )
    old.require("joint")
    network = {field.name: getattr(old.config, field.name) for field in dataclasses.fields(old.config)}
    del network["num_labels"]
    network["label_queries"] = old.name == "transfernet"
    common = dataclasses.replace(
        options.training, model_dir=options.output_dir, model=old.name, network=network
    )
    if not splits:
        for name in always_shown(old.label_map, common.data_dir, common.target_split):
            print(
                f"warning: all images show {name}: nothing tells how images without it look; give "
                "--rehearsal_dir",
                file=sys.stderr,
            )
    train(common, adaptation)
    if old.newest("classifier"):
        steps = options.classifier_steps
        train(dataclasses.replace(common, stage="classifier", steps=steps), adaptation)


if __name__ == "__main__":
    sys.exit(main())
