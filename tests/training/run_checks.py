"""What the tests of the training command share: the runs' words, and how their results are compared."""

import contextlib
import json
import socket

import numpy as np
import pytest

from tfseg.model_dir import load_model

SMALL = ["--preset=tiny", "--image_size=32", "--batch_size=4", "--seed=3", "--learning_rate=0.001"]
JOINT = [*SMALL, "--stage=joint", "--steps=40", "--checkpoint_every=10"]


def free_ports(count):
    """Ports that no process listens on, each another one."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def tf_config(jobs, job="worker", index=0):
    """The environment variable of a process."""
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


def read_losses(model_dir, stage="joint"):
    return [json.loads(line) for line in (model_dir / stage / "losses.jsonl").read_text().splitlines()]


def assert_same_losses(actual, expected, tolerance=1e-6):
    assert [entry["step"] for entry in actual] == [entry["step"] for entry in expected]
    for left, right in zip(actual, expected, strict=True):
        assert left == pytest.approx(right, rel=1e-6, abs=tolerance)


def assert_same_weights(left, right, tolerance=1e-6):
    for a, b in zip(load_model(left).weights, load_model(right).weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=tolerance, err_msg=a.path)


def assert_error(run, *messages):
    assert run.status == 2, run.err[-3000:]
    assert "Traceback" not in run.err
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    for message in messages:
        assert message in line
    return line
