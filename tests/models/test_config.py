import dataclasses
import json

import pytest

from tfseg.config import BGR_MEAN_INFERENCE, ModelConfig, preset
from tfseg.errors import InputError
from tfseg.models import build_classifier


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
        ({"factors": 0}, ("factors=0", "1 to 65536")),
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


WRONG_FIELDS = [
    ("image_size", 96.0), ("image_size", 20.5), ("image_size", float("nan")), ("image_size", True),
    ("image_size", None), ("image_size", 10**300), ("num_labels", float("inf")), ("factors", -1),
    ("factors", "128"), ("factors", [128]), ("combined_embed", "no"), ("combined_embed", 0),
    ("joint_gradient", None), ("gating", ["additive"]), ("gating", 1), ("feature_scale", float("nan")),
    ("feature_scale", 0), ("feature_scale", "1"), ("feature_scale", False), ("classifier_dropout", -0.1),
    ("classifier_units", -1), ("decoder_stddev", float("inf")), ("encoder_blocks", {"2": 16}),
    ("encoder_blocks", [[2, 16], 5, [2, 8], [1, 1]]), ("encoder_blocks", []), ("encoder_blocks", [[0, 16]]),
    ("encoder_blocks", [[2, 16], [2, 32.0], [2, 64], [2, 128]]), ("encoder_blocks", [[1, 1]] * 9999),
    ("bgr_mean", [1, 2]), ("bgr_mean", [1, 2, None]), ("bgr_mean", [1, 2, -3]), ("bgr_mean", 104.0),
]  # fmt: skip


@pytest.mark.parametrize("name, value", WRONG_FIELDS)
def test_each_field_has_its_type_and_range(name, value):
    text = json.dumps({**json.loads(preset("tiny").to_json()), name: value})
    with pytest.raises(InputError, match=rf"^m/model\.json: .*\b{name}\b.*(must be|allowed are) ") as caught:
        ModelConfig.from_json(text, origin="m/model.json")
    assert len(str(caught.value)) < 250


def test_no_field_is_without_a_check():
    values = json.loads(preset("tiny").to_json())
    for name in values:
        with pytest.raises(InputError, match=name):
            ModelConfig.from_json(json.dumps({**values, name: {"strange": 1}}))


def test_a_map_that_cannot_be_halved_again_is_refused_by_the_classifier():
    odd = preset("tiny").replace(image_size=40)
    with pytest.raises(InputError, match=r"image_size=40: leaves a map of 5x5.* multiple of 16"):
        build_classifier(odd)
