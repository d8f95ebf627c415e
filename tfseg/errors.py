"""The one exception that is written for people."""


class InputError(ValueError):
    """Something given to the program is wrong, and its giver can mend it.

    The message is one sentence that says what was given, in which file and record it stands, and
    what is allowed. `tfseg.cli.run` prints it as `error: ...` without a traceback.
    """
