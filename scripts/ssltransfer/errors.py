"""The one exception that users see as a single line."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user supplied is wrong.

    The message is one line: the file, the key or row, what was found and what to write instead.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception) -> str:
    """Return an error's message without line ends and control characters, which names of files may hold."""
    return printable(" ".join(str(error).split()))


def printable(text: str) -> str:
    """Return text with escapes in place of characters that control a terminal or the direction of writing."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def known_names(name: str, known: Iterable[str], word: str = "known") -> str:
    """Return what to write instead of an unknown name: the nearest one, or else all of them behind `word`."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"is it {near[0]!r}?" if near else f"{word} are {', '.join(names)}"


def damaged(path: object, reason: object) -> InputError:
    """Return the error for a file of this workflow that no longer holds what was written to it."""
    return InputError(f"{path} is damaged ({reason}); delete it to make it anew")
