"""The processes that train one model together, as `TF_CONFIG` names them; read without TensorFlow.

```json
{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}
```

Every process gets the same cluster and its own task. The chief is the `chief` task, or worker 0 without one.
"""

import dataclasses
import errno
import json
import os
import socket
import sys
import time
from typing import Any, NamedTuple

from tfseg.errors import InputError

RESOLVE_SECONDS = 30.0
"""How long the name of a machine may take to be known: cluster managers announce them one by one."""

_JOBS = ("chief", "worker")


class Worker(NamedTuple):
    """A process of the cluster.

    Attributes:
        job: `chief` or `worker`.
        number: Within its job.
        address: `HOST:PORT`.
    """

    job: str
    number: int
    address: str

    def __str__(self) -> str:
        """Names it in messages."""
        return f"{self.job} {self.number} ({self.address})"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All processes, and which of them this one is.

    ```python
    >>> task = '"task": {"type": "worker", "index": 1}'
    >>> cluster = parse_cluster('{"cluster": {"worker": ["a:2222", "b:2222"]}, ' + task + "}")
    >>> str(cluster.own), cluster.is_chief
    ('worker 1 (b:2222)', False)

    ```

    Attributes:
        workers: Every process, the chief first.
        index: Of this process among them.
        listener: Listens on its port until TensorFlow takes it.
    """

    workers: tuple[Worker, ...]
    index: int
    listener: socket.socket | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def own(self) -> Worker:
        """This process."""
        return self.workers[self.index]

    @property
    def others(self) -> tuple[Worker, ...]:
        """All but this process."""
        return self.workers[: self.index] + self.workers[self.index + 1 :]

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def meet(self) -> None:
        """Waits until all processes listen; TensorFlow would wait, too, but deaf to signals.

        Raises:
            InputError: If a name stays without an address.
        """
        for worker in self.others:
            _wait_for(worker)


def read_cluster() -> Cluster | None:
    """Reads the environment variable `TF_CONFIG` and takes this process' port; None where it is not set.

    Raises:
        InputError: If it is not what `parse_cluster` takes, or the port is in use.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        os.environ.pop("TF_CONFIG", None)  # TensorFlow reads it, too, and would call it no JSON.
        return None
    cluster = parse_cluster(text)
    return dataclasses.replace(cluster, listener=_listen(cluster.own))


def refuse_cluster() -> None:
    """Refuses `TF_CONFIG`, for a command that runs on one machine.

    Raises:
        InputError: If it is set.
    """
    if os.environ.get("TF_CONFIG", "").strip():
        raise InputError("TF_CONFIG: is set, but this command runs on one machine; unset it")


def parse_cluster(text: str) -> Cluster:
    """Parses the content of `TF_CONFIG`.

    Args:
        text: JSON with `cluster`, the addresses of `worker` and perhaps one of `chief`, and `task`, of which
            `type` and `index` say which of them this process is.

    Raises:
        InputError: If it is anything else.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"TF_CONFIG: is not JSON ({error}): {text[:80]!r}") from error
    if not isinstance(config, dict):
        raise InputError(f"TF_CONFIG: is {text[:80]!r}; needed is an object with cluster and task")
    workers = _workers(config.get("cluster"))
    task = config.get("task")
    if not isinstance(task, dict):
        raise InputError('TF_CONFIG: has no task; needed is such as {"type": "worker", "index": 0}')
    job, number = task.get("type"), task.get("index")
    if job not in _JOBS:
        raise InputError(
            f"TF_CONFIG: task type {job!r}; every process of a training is a worker, or the chief: "
            "there are no parameter servers, and --val_split evaluates while training"
        )
    found = [worker for worker in workers if worker.job == job]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(found):
        allowed = f"0 to {len(found) - 1}" if found else f"none, for cluster has no {job}"
        raise InputError(f"TF_CONFIG: task index {number!r} of type {job}; allowed are {allowed}")
    return Cluster(workers, workers.index(found[number]))


def _workers(jobs: Any) -> tuple[Worker, ...]:
    if not isinstance(jobs, dict) or not jobs:
        raise InputError('TF_CONFIG: has no cluster; needed is such as {"worker": ["10.0.0.1:2222", ...]}')
    if strange := sorted(set(jobs) - set(_JOBS)):
        raise InputError(
            f"TF_CONFIG: cluster has tasks of type {', '.join(strange)}; allowed are chief and worker"
        )
    workers = []
    for job in _JOBS:
        addresses = jobs.get(job, [])
        if not isinstance(addresses, list):
            raise InputError(f"TF_CONFIG: the {job} addresses are {addresses!r}; needed is a list")
        workers += [Worker(job, number, _address(job, each)) for number, each in enumerate(addresses)]
    if not workers:
        raise InputError("TF_CONFIG: cluster lists no address")
    if sum(worker.job == "chief" for worker in workers) > 1:
        raise InputError("TF_CONFIG: cluster has several chiefs; one of them writes, the others are workers")
    addresses = [worker.address for worker in workers]
    if len(set(addresses)) < len(addresses):
        twice = next(one for one in addresses if addresses.count(one) > 1)
        raise InputError(f"TF_CONFIG: cluster lists {twice} twice; each process needs its own port")
    return tuple(workers)


def _address(job: str, text: Any) -> str:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    whole = host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
    if not whole or any(letter.isspace() or letter == "/" for letter in host):
        raise InputError(f"TF_CONFIG: {job} address {text!r}; needed is HOST:PORT")
    return text


def _split(worker: Worker) -> tuple[str, int]:
    host, _, port = worker.address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _listen(own: Worker) -> socket.socket:
    """Takes the port of this process, so that the others see that it is there."""
    try:
        return socket.create_server(("", _split(own)[1]), backlog=1024)
    except OSError as error:
        reason = "another process has it" if error.errno == errno.EADDRINUSE else error.strerror
        raise InputError(
            f"TF_CONFIG: this process is {own}, but its port cannot be opened on this machine ({reason})"
        ) from error


def _wait_for(worker: Worker) -> None:
    start, told = time.monotonic(), False
    while True:
        try:
            socket.create_connection(_split(worker), timeout=5.0).close()
            return
        except (socket.gaierror, UnicodeError) as error:
            if time.monotonic() >= start + RESOLVE_SECONDS:
                raise InputError(f"TF_CONFIG: {worker}: its name has no address ({error})") from error
        except OSError:
            pass  # It is not there yet.
        if not told and time.monotonic() >= start + 1.0:
            print(f"waiting for {worker}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.2)
