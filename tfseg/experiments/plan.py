"""Which commands an experiment consists of; every one could be typed by a person."""

import dataclasses
import hashlib
from pathlib import Path

from tfseg.config import STAGES
from tfseg.data.records import finished_splits
from tfseg.errors import InputError
from tfseg.experiments.runner import Job

METHODS = {"transfernet": "TransferNet", "decouplednet": "DecoupledNet", "baselinenet": "BaselineNet"}
"""Names of `--model`, and what the paper calls them."""


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
        data: Names the content of the records.
    """

    data_dir: Path
    split: str
    recipes: Recipes
    runs: Path
    data: str

    @classmethod
    def make(cls, data_dir: str, split: str, recipes: str, output_dir: str) -> "Plan":
        """Reads the indices of the records, which hold the shards' checksums.

        Raises:
            InputError: If the split is not there.
        """
        names = finished_splits(data_dir)
        if split not in names:
            there = ", ".join(names) or "none"
            raise InputError(f"--data_dir={data_dir}: holds no split {split!r}; finished are: {there}")
        digest = hashlib.sha256()
        for name in names:
            digest.update((Path(data_dir) / f"{name}.json").read_bytes())
        runs = Path(output_dir) / "runs"
        return cls(Path(data_dir), split, Recipes(Path(recipes)), runs, digest.hexdigest())

    def train(
        self,
        stage: str,
        folder: str,
        seed: int,
        *,
        model: str = "transfernet",
        init: str | None = None,
        after: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
    ) -> Job:
        """Returns the job that trains a stage.

        Args:
            stage: Of `tfseg.config.STAGES`.
            folder: Model directory below `runs`.
            seed: Of the training.
            model: Of `METHODS`.
            init: Folder of the earlier stages below `runs`; None for `folder` itself.
            after: Jobs to wait for.
            flags: More flags, stronger than the recipe's.
        """
        words = ["-m", "tfseg.train", f"--flagfile={self.recipes.require(stage, model)}"]
        words += [f"--stage={stage}", f"--model={model}", f"--data_dir={self.data_dir}"]
        words += [f"--model_dir={self.runs / folder}", f"--seed={seed}"]
        words += [f"--init_dir={self.runs / init}"] if init else []
        product = self.runs / folder / stage / "checkpoint"
        return Job(f"{folder}/{stage}", f"{stage} {model}", (*words, *flags), product, after, self.data)

    def shared_stages(self, folder: str, seed: int, stages: tuple[str, ...]) -> list[Job]:
        """Returns the jobs of the stages that all methods of a seed start from, each after the one before.

        Stage `encoder` is left out where there is no recipe for it.
        """
        jobs: list[Job] = []
        for stage in sorted(stages, key=STAGES.index):
            if stage == "encoder" and self.recipes.find(stage, "transfernet") is None:
                continue
            jobs.append(self.train(stage, folder, seed, after=tuple(job.name for job in jobs)))
        return jobs

    def evaluate(
        self, folder: str, labels: str, method: str, crf: str, after: tuple[str, ...]
    ) -> tuple[Job, Path]:
        """Returns the job that evaluates a model, and the metrics it writes.

        Args:
            folder: Model directory below `runs`.
            labels: `predicted` or `ground_truth`.
            method: `decoder` or `attention`.
            crf: A mode of `tfseg.inference.crf`.
            after: Jobs to wait for.
        """
        name = f"{labels}-{crf if method == 'decoder' else method}"
        output_dir = self.runs / folder / "evaluation" / name
        recipe = self.recipes.folder / "evaluate.cfg"
        words = ["-m", "tfseg.evaluate"] + ([f"--flagfile={recipe}"] if recipe.is_file() else [])
        words += [f"--model_dir={self.runs / folder}", f"--data_dir={self.data_dir}"]
        words += [f"--split={self.split}", f"--labels={labels}", f"--method={method}", f"--crf={crf}"]
        words += [f"--output_dir={output_dir}"]
        metrics = output_dir / "metrics.json"
        kind = f"evaluate {method} {crf}"
        return Job(f"{folder}/{name}", kind, tuple(words), metrics, after, self.data), metrics

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
