"""Commands in processes that can be killed, forked from one that has TensorFlow imported already."""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

# TensorFlow starts no thread before it computes, so that forking after the import is safe.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tfseg.training.loop", "tfrecords.shards", "tfseg.inference.segmenter"])


class Run:
    """One started command; `status`, `out` and `err` are there once it was waited for.

    With `tf_config` it is one of several processes of a training.
    """

    def __init__(self, module: str, words: list[str], folder: Path, tf_config: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        paths = str(self._out), str(self._err)
        self._process = _CONTEXT.Process(target=_command, args=(module, words, *paths, tf_config))
        self._started = time.monotonic()
        self._process.start()
        self.pid = self._process.pid

    def wait(self, seconds: float = 600) -> "Run":
        """Waits for its end; `seconds` then says how long it took."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "the command does not end"
        self.seconds = time.monotonic() - self._started
        self.status = self._process.exitcode
        self.out, self.err = (p.read_text() if p.exists() else "" for p in (self._out, self._err))
        return self

    def kill_after(self, seconds: float, signum: int = signal.SIGKILL) -> "Run":
        """Sends a signal so many seconds after the start, unless it has ended before."""
        self._process.join(max(0.0, seconds - (time.monotonic() - self._started)))
        if self._process.is_alive():
            os.kill(self.pid, signum)
        return self.wait()

    def kill_when(
        self, condition: Callable[[], bool], seconds: float = 300, signum: int = signal.SIGKILL
    ) -> "Run":
        """Sends a signal as soon as `condition()` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.is_alive(), f"ended too early: {self._err.read_text()[-3000:]}"
            assert time.monotonic() < deadline, "waited for in vain"
            time.sleep(0.002)
        os.kill(self.pid, signum)
        return self.wait()

    def poll_until_end(self, look: Callable[[], None]) -> "Run":
        """Calls `look` over and over until the command has ended, and once more."""
        while self._process.is_alive():
            look()
        look()
        return self.wait()


def _command(module: str, words: list[str], out: str, err: str, tf_config: str) -> None:
    if tf_config:
        os.environ["TF_CONFIG"] = tf_config
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.exit(importlib.import_module(module).main(words))
