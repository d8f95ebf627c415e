"""A training whose attention takes the shortcut is told so; one that looks at the image is not."""

import json

import numpy as np
import small_training as small

from tfseg.training.monitor import ATTENTION_LOG, Monitor

GROUPS = {domain: small.LABEL_MAP.ids(domain) for domain in small.DOMAINS}


def _blind(built, row, column):
    """Makes the attention look at one place, whatever the image and the label."""
    att_w = built.get_layer("attention").get_layer("att_w")
    bias = np.zeros(built.output["attention"].shape[1:3], np.float32)
    bias[row, column] = 20.0
    att_w.set_weights([np.zeros(att_w.kernel.shape, np.float32), bias.ravel()])


def _train(built, tmp_path, updates=10, every=5):
    stage = small.stage_of(built, "attention")
    _, step = small.trainer(stage, 8, learning_rate=0.0)
    monitor = Monitor(tmp_path, 0, updates, 8, every, GROUPS)
    for update in range(1, updates + 1):
        monitor.update(update, step(small.batch_of(8, update)))
    monitor.close()
    return [json.loads(line) for line in (tmp_path / ATTENTION_LOG).read_text().splitlines()]


def test_the_shortcut_is_named_once_with_its_place(tmp_path, capsys):
    built = small.network("attention")
    _blind(built, 2, 1)
    entries = _train(built, tmp_path)
    assert [entry["step"] for entry in entries] == [5, 10]
    for entry in entries:
        for domain in small.DOMAINS:
            found = entry[domain]
            assert found["same_position"] == 1 and found["position"] == [2, 1]
            assert found["position_weight"] > 0.99 and found["positions"] < 1.01
    # Four positions a side, so that (2, 1) is none of the outermost.
    assert entries[0]["source"]["border"] < 0.01
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning: attention" in line]
    assert len(warnings) == 2  # Once a group, though both points show it.
    assert "row 2, column 1" in warnings[0] and "100 %" in warnings[0]


def test_on_the_object_equals_the_objects_share_for_a_uniform_attention(tmp_path, capsys):
    built = small.network("attention")
    att_w = built.get_layer("attention").get_layer("att_w")
    att_w.set_weights([np.zeros_like(weight) for weight in att_w.get_weights()])
    entries = _train(built, tmp_path)
    source, target = entries[-1]["source"], entries[-1]["target"]
    pixels = np.concatenate([small.batch_of(8, update)["source"]["mask"] for update in range(6, 11)])
    expected = (pixels == 1).mean(axis=(1, 2)).mean()
    np.testing.assert_allclose(source["inside"], expected, rtol=1e-4)
    assert target["inside"] is None and target["area"] is None
    np.testing.assert_allclose(source["border"], source["uniform_border"], rtol=1e-5)
    assert "warning" not in capsys.readouterr().err
