import dataclasses
import json

import pytest

from tfseg.config import BGR_MEAN_INFERENCE, ModelConfig, preset
from tfseg.errors import InputError


@pytest.mark.parametrize("name", ["official", "paper", "tiny"])
def test_json_round_trip(name):
    config = preset(name)
    assert ModelConfig.from_json(config.to_json()) == config
    changed = config.replace(gating="additive", bgr_mean=BGR_MEAN_INFERENCE, joint_gradient=False)
    assert ModelConfig.from_json(changed.to_json()) == changed != config
    assert hash(ModelConfig.from_json(config.to_json())) == hash(config)


def test_official_and_paper_are_the_numbers_of_the_spec():
    official = preset("official")
    assert (official.image_size, official.num_labels, official.factors) == (320, 80, 1024)
    assert (official.map_size, official.stride, official.feature_channels) == (20, 16, 512)
    assert official.feature_scale == 0.004 and official.gating == "multiplicative"
    assert official.decoder_init == "gaussian" and official.decoder_stddev == 0.01
    assert official.combined_embed and official.joint_gradient
    assert official.decoder_input == "densified" and official.encoder_padding == "zero"
    different = {
        field.name
        for field in dataclasses.fields(ModelConfig)
        if getattr(official, field.name) != getattr(preset("paper"), field.name)
    }
    assert different == {"combined_embed"}


def test_presets_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("tiny").factors = 1


def test_unknown_preset_names_the_known():
    with pytest.raises(InputError, match="official, paper, tiny"):
        preset("huge")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image_size": 330}, ("image_size=330", "multiple of 16")),
        ({"image_size": 0}, ("image_size=0",)),
        ({"image_size": -16}, ("image_size=-16",)),
        ({"num_labels": 0}, ("num_labels=0", "1 to 254")),
        ({"num_labels": 255}, ("num_labels=255", "ignore")),
        ({"factors": 0}, ("factors=0", "1 or more")),
        ({"classifier_dropout": 1.0}, ("classifier_dropout=1.0", "below 1")),
        ({"gating": "sum"}, ("gating='sum'", "multiplicative, additive, concat")),
        ({"encoder_padding": "same"}, ("encoder_padding='same'", "zero, symmetric")),
        ({"decoder_input": "z"}, ("decoder_input='z'", "densified, attention")),
        ({"decoder_init": "xavier"}, ("decoder_init='xavier'", "gaussian, he")),
    ],
)
def test_impossible_networks_are_refused(changes, words):
    with pytest.raises(InputError) as caught:
        ModelConfig(**changes)
    for word in words:
        assert word in str(caught.value)


def test_wrong_files_are_refused_by_name():
    values = json.loads(preset("tiny").to_json())
    for text in (
        "",
        "{",
        "null",
        "[]",
        "{}",
        json.dumps({**values, "number_of_heads": 4}),
        json.dumps({**values, "image_size": "96"}),
        json.dumps({**values, "image_size": 97}),
        json.dumps({**values, "encoder_blocks": 5}),
    ):
        with pytest.raises(InputError, match=r"model_dir/model\.json"):
            ModelConfig.from_json(text, origin="model_dir/model.json")
