"""The one exception that users see as a single line."""


class InputError(ValueError):
    """Something the user supplied is wrong.

    The message is one line: the file, the key or row, what was found and what to write instead.
    """
