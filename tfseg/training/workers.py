"""The processes of a training as one: what TensorFlow computes together, and what they agree on beside it.

Without `TF_CONFIG` there is one, which is the chief. Everything else is the same code: the chief starts the
weights, writes and looks; the others compute their parts of each update.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfseg import stopping
from tfseg.errors import InputError, WorkerLostError
from tfseg.training.cluster import Cluster, refuse_cluster

JOIN_SECONDS = 300.0
"""How long the others may take from their start to their first word in TensorFlow."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Workers:
    """This process and those that it trains with.

    ```python
    workers = Workers(read_cluster())
    with workers.together(), workers.strategy.scope():
        network = build_transfernet(config)
        workers.share(network.variables)
    ```

    Args:
        cluster: From `TF_CONFIG`; None for one process over all its GPUs.
        cpu_devices: Logical parts of the CPU that one process trains on; 0 leaves it whole.

    Attributes:
        strategy: How they compute.
        is_chief: Whether this process writes.

    Raises:
        InputError: If TensorFlow has computed in this process before, which is too early.
        WorkerLostError: If the others do not come.
    """

    def __init__(self, cluster: Cluster | None = None, cpu_devices: int = 0) -> None:
        if cluster is None:
            refuse_cluster()  # TensorFlow would read it.
        elif cpu_devices:
            raise InputError(f"--cpu_devices={cpu_devices}: with TF_CONFIG a process has one CPU")
        self._cluster, self._all_stop = cluster, False
        self.is_chief = cluster is None or cluster.is_chief
        self.strategy = _mirrored(cpu_devices) if cluster is None else _join(cluster)

    @property
    def name(self) -> str:
        """Names this process in what it prints."""
        return "this process" if self._cluster is None else str(self._cluster.own)

    @property
    def count(self) -> int:
        """Number of processes."""
        return 1 if self._cluster is None else len(self._cluster.workers)

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Compares what all processes must have alike.

        Args:
            facts: What it is, ready for JSON, by its name in the message.

        Raises:
            InputError: If a process has another one than the chief; every process raises it.
        """
        if self.count == 1:
            return
        table = np.zeros((self.count, len(facts)), np.int64)
        table[self._cluster.index] = [_number(fact) for fact in facts.values()]
        table = self._sum(table)
        for worker, row in zip(self._cluster.workers, table, strict=True):
            if other := [name for name, same in zip(facts, row == table[0], strict=True) if not same]:
                raise InputError(
                    f"TF_CONFIG: {worker} has other {' and other '.join(other)} than "
                    f"{self._cluster.workers[0]}; all processes need the same"
                )

    def share(self, variables: Iterable[tf.Variable]) -> None:
        """Gives variables the values that they have at the chief, on every device of every process."""
        if self.count == 1:
            return
        for variable in variables:
            value = variable.numpy()
            # Random states are unsigned, which the devices cannot add up.
            number = value.astype(np.int64) if value.dtype.kind in "ui" else value
            shared = self._sum(number if self.is_chief else np.zeros_like(number))
            variable.assign(shared.astype(value.dtype))

    def check(self, stop: stopping.Stop) -> None:
        """Raises `Stopped` in every process after the same update, if one was told to stop."""
        if self.count == 1:
            stop.check()
            return
        told = self._sum(np.array([stop.signal == signum for signum in _SIGNALS], np.int64))
        for signum, times in zip(_SIGNALS, told, strict=True):
            if times:
                self._all_stop = True
                raise stopping.Stopped(signum)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Ends the block in all processes at once, or says which one is missing.

        Raises:
            WorkerLostError: If another process has ended before.
        """
        try:
            try:
                yield
            except stopping.Stopped:
                if self._all_stop:
                    self._wait()  # For the chief, which saves.
                raise
            self._wait()
        except tf.errors.OpError as error:
            _raise_if_lost(self._cluster, error)
            raise

    def _wait(self) -> None:
        if self.count > 1:
            with stopping.later("all processes have finished"):
                self._sum(np.zeros(1, np.int64))

    def _sum(self, value: np.ndarray) -> np.ndarray:
        """Adds the values of all processes."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(value), axis=None).numpy()


def _mirrored(cpu_devices: int) -> tf.distribute.Strategy:
    """Returns a strategy over all GPUs, the CPU, or logical parts of the CPU."""
    if not cpu_devices:
        return tf.distribute.MirroredStrategy()
    parts = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])


def _join(cluster: Cluster) -> tf.distribute.Strategy:
    """Returns the strategy over all processes once they are there."""

    def give_up() -> None:
        others = ", ".join(map(str, cluster.others))
        text = f"error: {cluster.own}: lost one of {others} before the first update; start all of them again"
        print(text, file=sys.stderr, flush=True)
        os._exit(WorkerLostError.STATUS)  # TensorFlow waits, and cannot be told to stop.

    if cluster.listener:
        cluster.listener.close()
    patience = threading.Timer(JOIN_SECONDS, give_up)
    patience.daemon = True
    patience.start()
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {signum: signal.getsignal(signum) for signum in _SIGNALS if in_main_thread}
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        _raise_if_lost(cluster, error)
        raise
    except RuntimeError as error:
        raise InputError(
            f"TF_CONFIG: TensorFlow refuses ({str(error).splitlines()[0]}); start the training in a process "
            "of its own"
        ) from error
    finally:
        patience.cancel()
        for signum, handler in handlers.items():  # TensorFlow takes SIGTERM for itself.
            signal.signal(signum, handler)


def _raise_if_lost(cluster: Cluster | None, error: tf.errors.OpError) -> None:
    """Raises `WorkerLostError` if that is what TensorFlow's error tells."""
    others = cluster.others if cluster else ()
    named = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", str(error))
    lost = [str(worker) for worker in others if (worker.job, str(worker.number)) in named]
    if lost or (others and "Collective ops is aborted" in str(error)):
        raise WorkerLostError(
            f"{cluster.own}: lost {', '.join(lost) or 'another process'}, whose own output tells why; "
            "start all processes again, they go on from the last checkpoint"
        ) from error


def _number(fact: Any) -> int:
    digest = hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:6], "big")  # Their sum is one of them, for everybody else adds 0.
