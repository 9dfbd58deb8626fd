"""The one exception that carries a message for the user."""


class DtmdError(Exception):
    """A problem with the user's input: says where, what was found and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
