"""Errors a user can cause, each told in one line."""


class UserError(Exception):
    """Something only the user can put right: a path, a file, a size, a config field.

    The message is one line. It names the file or the config field and says what to do. `main.py` prints
    it without a traceback and exits with status 2.
    """
