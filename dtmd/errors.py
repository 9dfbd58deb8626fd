"""The exceptions that carry a message for the user."""


class DtmdError(Exception):
    """A problem with the user's input: says where, what was found and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class ProgramFailed(DtmdError):
    """A program that was run failed; `code` is its exit code, that of the signal that ended it negative."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
