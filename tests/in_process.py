"""Calls a command in the tests' own process, where TensorFlow is imported already."""

import contextlib
import io
from collections.abc import Callable
from types import SimpleNamespace


def call(main: Callable[[list[str]], int], *words: object) -> SimpleNamespace:
    """Returns `returncode`, `stdout` and `stderr`, as `subprocess.run` names them."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())
