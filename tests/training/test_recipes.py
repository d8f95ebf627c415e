"""Every flagfile under configs/ is understood by its command and describes a network that can be."""

import contextlib
import json
from pathlib import Path

import pytest

from tfseg import cli
from tfseg.config import STAGES, ModelConfig
from tfseg.errors import InputError
from tfseg.evaluate import EvaluationOptions
from tfseg.models import BUILDERS
from tfseg.training.options import TrainingOptions

REPOSITORY = Path(__file__).resolve().parents[2]
FLAGFILES = sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("configs/**/*.cfg"))
TRAIN = [path for path in FLAGFILES if not Path(path).stem.startswith("evaluate")]
EVALUATE = [path for path in FLAGFILES if path not in TRAIN]


def _read(options_class, argv, paths):
    """Reads each flagfile as its command does."""
    read = {}
    for path in paths:
        file = path if Path(path).is_absolute() else REPOSITORY / path
        try:
            with contextlib.chdir("/"):  # They name each other by `tfseg:`, so any folder will do.
                options = cli.parse(options_class, [*argv, f"--flagfile={file}"])
        except InputError as error:
            read[path] = {"error": str(error)}
            continue
        read[path] = cli.given_values(options)
        if options_class is TrainingOptions:
            read[path]["config"] = options.model_config(20 if options.preset == "tiny" else 80).to_json()
    return read


@pytest.fixture(scope="module")
def misspelt(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "joint.cfg"
    path.write_text("--stage=joint\n--learning_rat=0.1\n")
    return str(path)


@pytest.fixture(scope="module")
def trained(misspelt):
    return _read(TrainingOptions, ["--data_dir=.", "--model_dir=m", "--stage=joint"], [*TRAIN, misspelt])


@pytest.mark.parametrize("path", TRAIN)
def test_training_flagfile(trained, path):
    flags = trained[path]
    assert "error" not in flags, flags["error"]
    ModelConfig.from_json(flags["config"])
    stage = Path(path).stem.split("-")[0]
    assert stage not in STAGES or flags["stage"] == stage
    # Each of two domains gives a whole number of micro-batches.
    assert flags["batch_size"] % (2 * (flags["micro_batch_size"] or 1)) == 0
    # Nobody downloads weights for an encoder that they do not fit.
    assert flags["preset"] != "tiny" or flags["encoder_weights"] != "imagenet" or stage not in STAGES[:3]


def test_a_misspelt_flag_would_be_seen(trained, misspelt):
    assert "learning_rat" in trained[misspelt]["error"]


def test_evaluation_flagfiles():
    read = _read(EvaluationOptions, ["--data_dir=.", "--model_dir=."], EVALUATE)
    assert {path: flags["error"] for path, flags in read.items() if "error" in flags} == {}
    official, paper = read["configs/official/evaluate.cfg"], read["configs/paper/evaluate.cfg"]
    assert (official["background_factor"], official["crf"], official["label_threshold"]) == (
        0.5,
        "official",
        0.6,
    )
    assert (paper["background_factor"], paper["crf"], official["bgr_mean"]) == (1.0, "none", "inference")


def test_the_authors_recipe_and_the_papers(trained):
    """SPEC 12 rows 8, 9, 10, 11 and 13, as the flagfiles have them."""

    def values(path, *names):
        return tuple(trained[path][name] for name in names)

    rates = ("learning_rate", "batch_size", "micro_batch_size", "steps", "lr_multipliers")
    assert values("configs/official/attention.cfg", *rates) == (0.001, 64, 8, 15000, True)
    assert values("configs/official/joint.cfg", *rates) == (0.0005, 64, 4, 15000, True)
    assert values("configs/official/joint.cfg", "seg_weight", "seg_mean") == (1.0, "micro_batch")
    assert values("configs/official/attention.cfg", "encoder_weights", "mirror", "resize_to") == (
        "imagenet", True, None,
    )  # fmt: skip
    assert values("configs/paper/attention.cfg", *rates) == (0.0005, 64, 8, 15000, False)
    assert values("configs/paper/joint.cfg", *rates) == (0.0005, 64, 4, 15000, False)
    assert values("configs/paper/joint.cfg", "seg_weight", "seg_mean") == (1.0, "global")
    assert values("configs/paper/attention.cfg", "encoder_weights") == ("finetuned",)
    assert not (REPOSITORY / "configs/official/encoder.cfg").exists()  # Stage 0 is the paper's alone.
    for stage in ("attention", "joint"):
        for path in (f"configs/official/{stage}.cfg", f"configs/paper/{stage}.cfg"):
            assert trained[path]["target_masks"] == 0 and trained[path]["source_fraction"] == 1.0


def test_every_network_has_a_recipe_on_the_synthetic_set(trained):
    """Presets, baselines and ablations."""
    configs = {path: json.loads(flags["config"]) for path, flags in trained.items() if "config" in flags}
    for name in ("official", "paper"):
        for stage in ("classifier", "attention", "joint"):
            config = configs[f"configs/synthetic/{name}/{stage}.cfg"]
            assert config["image_size"] == 96 and config["factors"] == 1024
            assert config["combined_embed"] == (name == "official")
    folder = "configs/synthetic/variants"
    assert configs[f"{folder}/additive.cfg"]["gating"] == "additive"
    assert configs[f"{folder}/concat.cfg"]["gating"] == "concat"
    assert configs[f"{folder}/sparse_attention.cfg"]["decoder_input"] == "attention"
    assert configs[f"{folder}/no_joint_gradient.cfg"]["joint_gradient"] is False
    for model in BUILDERS.keys() - {"transfernet"}:
        assert trained[f"{folder}/{model}.cfg"]["model"] == model
