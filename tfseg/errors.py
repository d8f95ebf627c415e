"""The exceptions that are written for people."""


class InputError(ValueError):
    """Something given to the program is wrong, and its giver can mend it.

    The message is one sentence that says what was given, in which file and record it stands, and
    what is allowed. `tfseg.cli.run` prints it as `error: ...` without a traceback.
    """


class RecordError(InputError):
    """A record of a split, or an entry of a dataset's files, is damaged or malformed; it could be left out.

    Attributes:
        kind: What is wrong with it, in words that records of the same fault share.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerLostError(RuntimeError):
    """Another process of a training on several machines has ended; started again, it goes on.

    `tfseg.cli.run` prints it as `error: ...`, with a status of its own, so that a cluster manager can tell
    it from input that is wrong.
    """

    STATUS = 75
    """Exit status: `EX_TEMPFAIL` of sysexits.h."""
