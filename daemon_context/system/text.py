"""Text that comes from elsewhere, made fit to be shown.

A daemon may be hostile, and what it says ends on root's terminal, in a log, or before a program
that reads lines. All of it goes through `shown`.
"""

from __future__ import annotations

SPACES = "\xa0\u202f\u3000"  # that people write and no terminal obeys, and are not "printable"
NOTICE = 32  # characters of room for half of the words about what is left out


def shown(text: str, largest: int, *, lines: bool = False) -> str:
    """The text without what a terminal, a log or a reader of lines would obey.

    Escaped as Python does it are control characters, C0 and C1; what turns the direction of writing
    or can't be seen; line ends; halves of a surrogate pair. What is shown once stays as it is.

    :param largest: characters, at least 100; of a longer text the middle is left out
    :param lines: whether it may have several lines
    """
    if len(text) <= largest:  # else each half alone: it may be of any size
        text = _escaped(text, lines)
    if len(text) <= largest:
        return text
    half = largest // 2 - NOTICE
    end = "\n" if lines else " "
    left_out = f"{end}… {len(text) - 2 * half} characters left out …{end}"
    return _escaped(text[:half], lines)[:half] + left_out + _escaped(text[-half:], lines)[-half:]


def _escaped(text: str, lines: bool) -> str:
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c, lines) else repr(c)[1:-1] for c in text)


def _is_harmless(c: str, lines: bool) -> bool:
    return c.isprintable() or c in SPACES or (lines and c == "\n")
