"""Which commands an experiment consists of; every one could be typed by a person."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfseg import cli
from tfseg.config import STAGES
from tfseg.errors import InputError
from tfseg.paper.runner import Job
from tfseg.shipped import locate

METHODS = {"transfernet": "TransferNet", "decouplednet": "DecoupledNet", "baselinenet": "BaselineNet"}
"""Names of `--model`, and what the paper calls them."""


SOME_FAILED = 1
"""Exit status of an experiment in which a run failed; its tables hold all others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """What all experiments are told; each field is a flag."""

    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    output_dir: str = cli.flag("Takes runs/, jobs/ and the tables.")
    recipes: str = cli.flag("Folder of flagfiles, STAGE[-MODEL].cfg.", default="tfseg:demo")
    split: str = cli.flag("Records to evaluate; they need masks.", default="target_val")
    encoder_weights: str | None = cli.flag(
        "Where the first stage's encoder starts, as tfseg.train takes it; without it, as the recipe says.",
        default=None,
    )


@dataclasses.dataclass(frozen=True)
class Recipes:
    """A folder of flagfiles for `tfseg.train`: `STAGE.cfg`, or `STAGE-MODEL.cfg` for one model alone.

    `encoder.cfg` may be missing where the encoder is not finetuned. An optional `evaluate.cfg` goes to
    `tfseg.evaluate`.
    """

    folder: Path

    def find(self, stage: str, model: str) -> Path | None:
        """Returns the flagfile of a stage, or None."""
        candidates = (self.folder / f"{stage}-{model}.cfg", self.folder / f"{stage}.cfg")
        return next((path for path in candidates if path.is_file()), None)

    def steps(self, stage: str, model: str) -> int | None:
        """Returns the updates that the flagfile of a stage asks for; None where it says nothing.

        Raises:
            InputError: If a flagfile in it cannot be read.
        """
        path = self.find(stage, model)
        words = cli.expand_flagfiles([f"--flagfile={path}"]) if path else []
        found = [word.removeprefix("--steps=") for word in words if word.startswith("--steps=")]
        return int(found[-1]) if found else None

    def require(self, stage: str, model: str) -> Path:
        """Returns the flagfile of a stage.

        Raises:
            InputError: If there is none.
        """
        path = self.find(stage, model)
        if path is None:
            wanted = f"{stage}.cfg nor {stage}-{model}.cfg"
            raise InputError(f"--recipes={self.folder}: holds neither {wanted}; a flagfile of tfseg.train")
        return path


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all jobs of an experiment share.

    Attributes:
        data_dir: Directory of the records.
        split: Split to evaluate.
        recipes: The flagfiles.
        runs: Directory of the models.
        encoder_weights: Where the encoder starts in stages that follow no stage `encoder`; None for what
            the recipe says.
        data: Names the content of the records.
    """

    data_dir: Path
    split: str
    recipes: Recipes
    runs: Path
    encoder_weights: str | None
    data: str

    @classmethod
    def make(cls, options: ExperimentOptions) -> "Plan":
        """Reads the indices of the records, which hold the shards' checksums.

        Raises:
            InputError: If the split is not there.
        """
        from tfseg.data.records import finished_splits

        names = finished_splits(options.data_dir)
        if options.split not in names:
            there = ", ".join(names) or "none"
            raise InputError(
                f"--data_dir={options.data_dir}: holds no split {options.split!r}; finished are: {there}"
            )
        digest = hashlib.sha256()
        for name in names:
            digest.update((Path(options.data_dir) / f"{name}.json").read_bytes())
        return cls(
            Path(options.data_dir),
            options.split,
            Recipes(Path(locate(options.recipes))),
            Path(options.output_dir) / "runs",
            options.encoder_weights,
            digest.hexdigest(),
        )

    def train(
        self,
        stage: str,
        folder: str,
        seed: int,
        *,
        model: str = "transfernet",
        init: str | None = None,
        after: Sequence[Job] = (),
        flags: tuple[str, ...] = (),
    ) -> Job:
        """Returns the job that trains a stage.

        Args:
            stage: Of `tfseg.config.STAGES`.
            folder: Model directory below `runs`.
            seed: Of the training.
            model: Of `METHODS`.
            init: Folder of the earlier stages below `runs`; None for `folder` itself.
            after: The jobs whose weights it starts from.
            flags: More flags, stronger than the recipe's.
        """
        directory = self.runs / folder
        words = ["-m", "tfseg.train", f"--flagfile={self.recipes.require(stage, model)}"]
        words += [f"--stage={stage}", f"--model={model}", f"--data_dir={self.data_dir}"]
        words += [f"--model_dir={directory}", f"--seed={seed}"]
        words += [f"--init_dir={self.runs / init}"] if init else []
        words += [f"--encoder_weights={self.encoder_weights}"] if self.encoder_weights and not after else []
        # What describes the network belongs to the first stage of a folder.
        first = init is not None or not after
        shared = (directory / "model.json", directory / "labels.json") if first else ()
        return Job(
            f"{folder}/{stage}",
            f"{stage} {model}",
            (*words, *flags),
            directory / stage / "checkpoint",
            tuple(job.name for job in after),
            self.data,
            (directory / stage, *shared),
        )

    def shared_stages(self, folder: str, seed: int, stages: Sequence[str]) -> dict[str, Job]:
        """Returns the jobs of the stages that all methods of a seed start from, by stage.

        Stage `encoder` is left out where there is no recipe for it; all others start from it.
        """
        jobs: dict[str, Job] = {}
        for stage in sorted(stages, key=STAGES.index):
            if stage == "encoder" and self.recipes.find(stage, "transfernet") is None:
                continue
            after = [jobs["encoder"]] if "encoder" in jobs else []
            jobs[stage] = self.train(stage, folder, seed, after=after)
        return jobs

    def evaluate(self, folder: str, labels: str, method: str, crf: str, after: Sequence[Job]) -> Job:
        """Returns the job that evaluates a model; its product is a `metrics.json`.

        Args:
            folder: Model directory below `runs`.
            labels: `predicted` or `ground_truth`.
            method: `decoder` or `attention`.
            crf: A mode of `tfseg.inference.crf`.
            after: The jobs whose weights it measures.
        """
        name = f"{labels}-{crf if method == 'decoder' else method}"
        output_dir = self.runs / folder / "evaluation" / name
        recipe = self.recipes.folder / "evaluate.cfg"
        words = ["-m", "tfseg.evaluate"] + ([f"--flagfile={recipe}"] if recipe.is_file() else [])
        words += [f"--model_dir={self.runs / folder}", f"--data_dir={self.data_dir}"]
        words += [f"--split={self.split}", f"--labels={labels}", f"--method={method}", f"--crf={crf}"]
        words += [f"--output_dir={output_dir}"]
        return Job(
            f"{folder}/{name}",
            f"evaluate {method} {crf}",
            tuple(words),
            output_dir / "metrics.json",
            tuple(job.name for job in after),
            self.data,
            (output_dir,),
        )

    def share_classifier(self, folder: str, shared: str) -> None:
        """Lets a model directory use the label classifier of another one, by a link.

        Raises:
            InputError: If something else stands in its place.
        """
        link = self.runs / folder / "classifier"
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink().parts[-2:] == (Path(shared).name, "classifier"):
            return
        if link.exists() or link.is_symlink():
            raise InputError(f"{link}: is in the way of a link to the classifier of {shared}; remove it")
        link.symlink_to(Path("..") / Path(shared).name / "classifier", target_is_directory=True)


def from_encoder(shared: dict[str, Job], folder: str) -> dict[str, Any]:
    """Returns what lets `Plan.train` start from the stage `encoder` of a folder, where there is one."""
    return {"init": folder, "after": [shared["encoder"]]} if "encoder" in shared else {}


def weights_of(last: Job, shared: dict[str, Job], labels: str) -> list[Job]:
    """Returns the jobs that an evaluation depends on: the last stage, and the classifier if it is used."""
    return [last, shared["classifier"]] if labels == "predicted" else [last]
