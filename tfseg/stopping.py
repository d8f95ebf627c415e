"""Ctrl-C and SIGTERM: a command ends in one line, with all that it wrote whole; a training saves first.

A shell starts what it runs in the background with Ctrl-C ignored; commands take it all the same, for
`kill -INT` is how such a run is stopped.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SAME_SECONDS = 1.0
"""`timeout` and cluster managers send a signal to a process and to its group: that is one stop, not two."""


class Stopped(KeyboardInterrupt):
    """The process was told to stop; a note added to it says what became of the work.

    Attributes:
        signal: Which signal told it.
    """

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(_WORDS[signal.Signals(signum)])
        self.signal = signal.Signals(signum)


class Stop:
    """What `later` has heard so far.

    Attributes:
        signal: The first signal; None without any.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raises `Stopped` if a signal came."""
        if self.signal is not None:
            raise Stopped(self.signal)


def tell(stopped: KeyboardInterrupt) -> None:
    """Writes the one line that a command ends with to stderr: `interrupted`, and the notes."""
    _say(": ".join([_WORDS[_signal_of(stopped)], *getattr(stopped, "__notes__", ())]))


def status(stopped: KeyboardInterrupt) -> int:
    """Returns the exit status as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _signal_of(stopped)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Lets a signal raise `Stopped` in the block; a second one ends the process without cleaning up.

    In the midst of an import, where exceptions are swallowed or turned into others, the first one ends it.
    """
    first: list[float] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] < _SAME_SECONDS:
            return
        if first or _is_importing(frame):
            _exit(signum)
        first.append(time.monotonic())
        raise Stopped(signum)

    with _handled_by(handle):
        yield


@contextlib.contextmanager
def later(what: str = "", before_exit: Callable[[], object] = lambda: None) -> Iterator[Stop]:
    """Notes a signal for whoever asks, so that the block ends where it likes; a second one ends the process.

    A thread hears of signals: the main one hears nothing while TensorFlow computes an update.

    Args:
        what: What is finished first, shown if that takes over a second.
        before_exit: Called before a second signal ends the process.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_hear, args=(reader, stop, what, before_exit), daemon=True)
    thread.start()
    with _handled_by(lambda *_: None):
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield stop
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)
            thread.join()
            os.close(reader)


def end_imports() -> None:
    """Makes the first signal end the process in one line, until a command takes over."""
    for signum in _WORDS:
        signal.signal(signum, lambda signum, _: _exit(signum))


def end_silently() -> None:
    """Lets a signal end a process whose work is done or given up, without another line."""
    for signum in _WORDS:
        signal.signal(signum, signal.SIG_DFL)


def leave_to_parent() -> None:
    """Starts a worker process: Ctrl-C is its parent's to handle, and it does not outlive a killed parent."""
    from multiprocessing import connection, parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _hear(reader: int, stop: Stop, what: str, before_exit: Callable[[], object]) -> None:
    """Reads the numbers of signals until the pipe is closed."""
    first = None
    told = not what
    while True:
        patience = None if first is None or told else max(0.0, first + _SAME_SECONDS - time.monotonic())
        if not select.select([reader], [], [], patience)[0]:
            _say(f"stopping after {what}; a second signal ends at once")
            told = True
            continue
        byte = os.read(reader, 1)
        if not byte:
            return
        if byte[0] not in [int(signum) for signum in _WORDS]:
            continue
        if first is None:
            stop.signal, first = byte[0], time.monotonic()
        elif time.monotonic() - first >= _SAME_SECONDS:
            before_exit()
            _exit(byte[0])


@contextlib.contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals.
        return
    before = {signum: signal.signal(signum, handle) for signum in _WORDS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def _signal_of(stopped: KeyboardInterrupt) -> signal.Signals:
    return getattr(stopped, "signal", signal.SIGINT)  # Python's own is Ctrl-C's.


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _exit(signum: int) -> None:
    _say(_WORDS[signal.Signals(signum)])
    os._exit(128 + signum)


def _say(text: str) -> None:
    # A terminal shows ^C, or a bar, in its last line.
    line = ("\n" if sys.stderr.isatty() else "") + text + "\n"
    try:
        os.write(sys.stderr.fileno(), line.encode())  # Past buffers in which the main thread may be at work.
    except (AttributeError, OSError, ValueError):  # A notebook's has no descriptor.
        print(line, end="", file=sys.stderr)
