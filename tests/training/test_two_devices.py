"""Two devices do what one does; the program beside runs in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def cases():
    here = Path(__file__).parent
    paths = [str(REPOSITORY), str(here.parent), str(here)]
    finished = subprocess.run(
        [sys.executable, here / "two_devices.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    entries = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    return {entry.pop("case"): entry for entry in entries}


@pytest.mark.parametrize("name", ["attention", "joint", "joint_micro", "encoder", "baselinenet"])
def test_losses_and_weights_are_those_of_one_device(cases, name):
    case = cases[name]
    assert case["updates"] == 4 and case["start"] == 0.0
    assert case["losses"] <= TOLERANCE and case["weights"] <= TOLERANCE
    assert case["moved"] > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["dropout", "decouplednet"])
def test_dropout_and_batch_norm_run(cases, name):
    case = cases[name]
    assert case["devices"] == 2 and case["finite"] and np.isfinite(case["losses"]).all()
    # Each device keeps moving statistics of its own; all that is trained is the same on both.
    assert {path.split("/")[-1] for path in case["unequal_copies"]} <= {"moving_mean", "moving_variance"}


def test_gradients_are_summed_and_multipliers_hold(cases):
    """Unit gradients on both devices: momentum (1 - 0.9) times 2, steps of one multiplier each."""
    np.testing.assert_allclose(cases["adam"]["momentum"], 0.2, rtol=1e-5)
    for path, step in cases["adam"]["steps"].items():
        factor = (10 if "cls_score" in path else 1) * (2 if path.endswith("bias") else 1)
        np.testing.assert_allclose(step, factor, rtol=1e-4, err_msg=path)
