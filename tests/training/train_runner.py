"""Runs `tfseg.train` in processes of their own, forked from one that has TensorFlow imported already."""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

# TensorFlow starts no thread before it computes, so that forking after the import is safe.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tfseg.training.loop"])


class Run:
    """One started command; `status`, `out` and `err` are there once it was waited for."""

    def __init__(self, words: list[str], folder: Path, tf_config: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        paths = str(self._out), str(self._err)
        self._process = _CONTEXT.Process(target=_command, args=(words, *paths, tf_config))
        self._process.start()
        self.pid = self._process.pid

    def wait(self, seconds: float = 300) -> "Run":
        self._process.join(seconds)
        assert self._process.exitcode is not None, "the run does not end"
        self.status = self._process.exitcode
        self.out, self.err = self._out.read_text(), self._err.read_text()
        return self

    def kill_when(self, condition, seconds: float = 300, signum: int = signal.SIGKILL) -> "Run":
        """Sends a signal as soon as `condition()` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.is_alive(), f"ended too early: {self._err.read_text()[-3000:]}"
            assert time.monotonic() < deadline, "waited for in vain"
            time.sleep(0.002)
        os.kill(self._process.pid, signum)
        return self.wait()


def _command(words: list[str], out: str, err: str, tf_config: str) -> None:
    if tf_config:
        os.environ["TF_CONFIG"] = tf_config
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    from tfseg import train

    sys.exit(train.main(words))
