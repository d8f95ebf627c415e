"""Keeps the log of TensorFlow's C++ parts out of what a command shows, but for its errors.

`TF_CPP_MIN_LOG_LEVEL` hides most of it. What is written before TensorFlow reads the level, and lines that
are called errors and are none, are filtered by a small process between file descriptor 2 and the terminal.
As a process of its own it forwards what TensorFlow says last when it aborts. Run as a script, this file is
that process.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_END = b"\x00end of the command\n"
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IW]\d{4} \d\d:\d\d:\d\d"  # Information and warnings, as the level hides them.
    rb"|[IW]0000 00:\d\d:\d+\.\d+"  # The same before the log is initialized.
    rb"|To enable the following instructions: "  # Second line of cpu_feature_guard.
    rb"|E\d{4} .*oneDNN supports DT_\w+ only on platforms with AVX-512"  # Another kernel is taken.
)
# What TensorFlow says of a process that trained with this one and is gone: the command says it in one line.
_LOST = re.compile(
    rb"E\d{4} .*(base_collective_executor|ring_alg)\.cc:\d+\] .*Abort"
    rb"|/job:\w+/replica:\d+/task:\d+$|The tasks have crashed\. Check the task logs"
    rb"|The error could be from a previous operation\.|:UNKNOWN:Error received from peer"
    rb"|Additional GRPC error information from remote target "
)
_NO_GPU = re.compile(rb"E\d{4} .*(failed call to cuInit|Unable to register cu\w+ factory)")


@contextlib.contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Keeps TensorFlow's log off stderr while the block runs.

    Python's own `sys.stderr` goes past the filter, so that it stays a terminal where it is one. Nothing is
    done where stderr is not file descriptor 2, as in a notebook, or where TensorFlow is imported already.

    Args:
        verbose: Whether all of the log is shown instead.
    """
    if verbose:
        os.environ[_LEVEL] = "0"
    os.environ.setdefault(_LEVEL, "2")  # Errors; read when TensorFlow is imported, also by workers.
    if os.environ[_LEVEL] == "0" or "tensorflow" in sys.modules or not _is_descriptor_2(sys.stderr):
        yield
        return
    sys.stderr.flush()
    python_stderr, terminal = sys.stderr, os.dup(2)
    # In a session of its own, Ctrl-C does not reach it.
    command = [sys.executable, "-I", "-S", __file__]
    filtering = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    os.dup2(filtering.stdin.fileno(), 2)
    # Log handlers may keep it, so that it stays open.
    sys.stderr = os.fdopen(
        terminal, "w", buffering=1, encoding=python_stderr.encoding, errors="backslashreplace"
    )
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        sys.stderr = python_stderr
        with contextlib.suppress(BrokenPipeError):
            filtering.stdin.write(_END)  # Workers may hold the pipe open for longer.
            filtering.stdin.close()
        filtering.wait()


def forward(lines: Iterable[bytes], to: BinaryIO, has_gpu: bool = False) -> None:
    """Writes lines of a log on, without chatter, until they end or the end of a command is told.

    Args:
        lines: Of a log, each with its line feed.
        to: Takes what is left.
        has_gpu: Whether there is a GPU, so that CUDA's errors mean something.
    """
    for line in lines:
        if line.endswith(_END):
            return
        if not (_CHATTER.match(line) or _LOST.match(line) or (_NO_GPU.match(line) and not has_gpu)):
            to.write(line)
            to.flush()


def _is_descriptor_2(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    forward(sys.stdin.buffer, sys.stderr.buffer, Path("/dev/nvidiactl").exists())
