"""TF_CONFIG: what TensorFlow reads is read alike, and junk is one line before TensorFlow is imported."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
from run_checks import assert_error, free_ports, tf_config

from tfseg.errors import InputError
from tfseg.training import cluster

TWO = {"worker": ["127.0.0.1:2222", "localhost:2223"]}
CHIEF = {"worker": ["10.0.0.2:2222", "[::1]:2222"], "chief": ["10.0.0.1:2222"]}


@pytest.mark.parametrize(
    ("jobs", "job", "index", "chief"),
    [
        (TWO, "worker", 0, True),
        (TWO, "worker", 1, False),
        (CHIEF, "chief", 0, True),
        (CHIEF, "worker", 0, False),
        (CHIEF, "worker", 1, False),
        ({"worker": ["alone:1"]}, "worker", 0, True),
    ],
)
def test_it_is_read_as_by_tensorflow(monkeypatch, jobs, job, index, chief):
    text = tf_config(jobs, job, index)
    ours = cluster.parse_cluster(text)
    monkeypatch.setenv("TF_CONFIG", text)
    theirs = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    spec = theirs.cluster_spec()
    assert ours.own == (theirs.task_type, theirs.task_id, spec.task_address(job, index))
    assert len(ours.workers) == sum(map(spec.num_tasks, spec.jobs))
    assert ours.is_chief == chief and ours.own not in ours.others
    assert ours.workers[0].job == ("chief" if "chief" in jobs else "worker")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{worker", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "needed is an object"),
        ("{}", "has no cluster"),
        ('{"cluster": {}, "task": {"type": "worker", "index": 0}}', "has no cluster"),
        ('{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}', "has no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no task"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {}}', "task type None"),
        (tf_config(TWO, index=2), "task index 2 of type worker; allowed are 0 to 1"),
        (tf_config(TWO, index=-1), "task index -1"),
        (tf_config(TWO, index="0"), "task index '0'"),
        (tf_config(TWO, index=True), "task index True"),
        (tf_config(TWO, job="chief"), "allowed are none, for cluster has no chief"),
        (tf_config(TWO, job="evaluator"), "task type 'evaluator'"),
        (tf_config(TWO, job="ps"), "task type 'ps'"),
        (tf_config({"worker": ["a:1"], "ps": ["b:1"]}), "tasks of type ps"),
        (tf_config({"worker": []}), "lists no address"),
        (tf_config({"worker": "a:1"}), "needed is a list"),
        (tf_config({"worker": ["a:1"], "chief": ["b:1", "c:1"]}), "several chiefs"),
        (tf_config({"worker": ["a:1", "a:1"]}), "lists a:1 twice"),
        *[
            (tf_config({"worker": [address]}), "needed is HOST:PORT")
            for address in ("a", ":1", "a:", "a:x", "a:0", "a:65536", "a b:1", "http://a:1", 5, None)
        ],
    ],
)
def test_junk_is_named(text, message):
    with pytest.raises(InputError, match=r"^TF_CONFIG: ") as caught:
        cluster.parse_cluster(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_cluster_where_it_is_not_set(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", " ")
    assert cluster.read_cluster() is None
    assert "TF_CONFIG" not in os.environ  # TensorFlow's own reader would call it no JSON.
    assert cluster.read_cluster() is None


def test_a_port_in_use(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("TF_CONFIG", tf_config({"worker": [f"localhost:{server.getsockname()[1]}"]}))
        with pytest.raises(InputError, match=r"this process is worker 0 .*another process has it"):
            cluster.read_cluster()
    with cluster.read_cluster().listener as listener:  # Once it is free again.
        assert listener.getsockname()[1] > 0


def test_processes_wait_for_each_other(monkeypatch, capsys):
    """The second one comes later, and under a name that is not known at first."""
    ports = free_ports(2)
    addresses = [f"localhost:{ports[0]}", f"worker-1.invalid:{ports[1]}"]
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": addresses}))
    connect, tried, servers = socket.create_connection, [], []

    def later(address, *args, **kwargs):
        tried.append(address)
        if len(tried) <= 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if len(tried) == 9:
            servers.append(socket.create_server(("localhost", ports[1])))
        return connect(("localhost", address[1]), *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", later)
    read = cluster.read_cluster()
    with read.listener as listener:
        read.meet()
        assert listener.getsockname()[1] == ports[0]
    servers[0].close()
    assert tried == [("worker-1.invalid", ports[1])] * 9
    assert capsys.readouterr().err == f"waiting for worker 1 ({addresses[1]})\n"


@pytest.mark.parametrize("host", ["worker-1.invalid", "x" * 70 + ".example"])
def test_a_name_that_stays_without_an_address(monkeypatch, host):
    monkeypatch.setattr(cluster, "RESOLVE_SECONDS", 0.0)
    (port,) = free_ports(1)
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": [f"localhost:{port}", f"{host}:29999"]}))
    read = cluster.read_cluster()
    with (
        read.listener,
        pytest.raises(InputError, match=rf"worker 1 \({host}:29999\): its name has no address"),
    ):
        read.meet()


def test_the_command_says_so_before_tensorflow_is_imported(synthetic_records, tmp_path):
    flags = [f"--data_dir={synthetic_records}", f"--model_dir={tmp_path / 'model'}", "--stage=encoder"]
    program = "import sys; from tfseg import train; s = train.main(sys.argv[1:]); "
    program += "assert 'tensorflow' not in sys.modules; sys.exit(s)"
    finished = subprocess.run(
        [sys.executable, "-c", program, *flags],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TF_CONFIG": tf_config(TWO, index=7)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_error(SimpleNamespace(status=finished.returncode, err=finished.stderr), "TF_CONFIG: task index 7")
    assert finished.stdout == "" and not (tmp_path / "model").exists()
