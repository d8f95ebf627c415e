import json

import numpy as np
import pytest
import tensorflow as tf

from tfseg.training.monitor import ATTENTION_LOG, LOSS_LOG, VALIDATION_LOG, Monitor, pictures_of


def draw(low, high):
    """Draws maps that are `high` at row 1, column 2 of 4 x 4 and `low` elsewhere."""
    values = np.full((1, 4, 4), low, np.float32)
    values[0, 1, 2] = high

    def network(inputs, training):
        assert not training
        maps = tf.constant(values)
        return {"attention": maps, "densified": maps, "mask_logits": tf.zeros((1, 32, 32, 2))}

    examples = {"image": tf.fill((1, 32, 32, 3), 200.0), "label": tf.constant([1])}
    (picture,) = pictures_of(network, examples)
    assert picture.shape == (32, 4 * 32, 3) and picture.dtype == np.uint8
    image, attention, densified, mask = np.split(picture[..., 0], 4, axis=1)
    assert (image == 200).all()
    assert set(np.unique(mask)) <= {127, 128}
    np.testing.assert_array_equal(attention, densified)
    return attention


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-5.0, -3.0), (-1.0, 1.0)])
def test_maps_are_brightest_where_they_are_highest(low, high):
    drawn = draw(low, high)
    y, x = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (y // 8, x // 8) == (1, 2)
    assert drawn.max() > 200
    assert not drawn[24:].any()


@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
def test_constant_maps_are_black(value):
    assert not draw(value, value).any()


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"7", b"[3]", b"{}", b'{"step": "3"}', b"", b'{"step": 3'])
def test_of_damaged_logs_what_stands_before_is_kept(tmp_path, capsys, damage):
    for log in (LOSS_LOG, ATTENTION_LOG, VALIDATION_LOG):
        lines = [json.dumps({"step": step, "loss": 0.5}).encode() for step in range(1, 6)]
        (tmp_path / log).write_bytes(b"\n".join([*lines[:2], damage, *lines[3:], b'{"st']))
    monitor = Monitor(tmp_path, 5, 8, 4, 100)
    monitor.update(6, {"loss": tf.constant(0.25)})
    monitor.close()
    err = capsys.readouterr().err
    for log in (LOSS_LOG, ATTENTION_LOG, VALIDATION_LOG):
        assert err.count(f"{tmp_path / log}: line 3 is damaged; the 2 before it are kept\n") == 1
        kept = [json.loads(line)["step"] for line in (tmp_path / log).read_text().splitlines()]
        assert kept == ([1, 2, 6] if log == LOSS_LOG else [1, 2])
