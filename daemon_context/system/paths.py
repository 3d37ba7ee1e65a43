"""Paths, as options give them."""

from __future__ import annotations

import os

from ..errors import refuse

PARTS = 4096  # of a path, links resolved: more is a circle


def absolute_path(option: str, value: object) -> str:
    """The path that the option gives.

    :raises OptionError: it can't be one
    """
    path = text_path(option, value)
    try:
        return os.path.abspath(path)
    except OSError as error:
        expected = f"an absolute path, as the current directory can't be told: {error.strerror}"
        raise refuse(option, path, expected) from error


def text_path(option: str, value: object) -> str:
    """The path as text, as the option gives it."""
    try:
        path = os.fsdecode(value)  # type: ignore[arg-type]
    except TypeError:
        raise refuse(option, value, "a path") from None
    if not path or "\0" in path:
        raise refuse(option, value, "a path that is not empty and has no NUL in it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise refuse(option, value, "a path that can be written in bytes") from None
    return path


def real_path(path: str, users: set[int]) -> str | None:
    """The path without links; None if one on the way to it belongs to nobody of these users.

    Who can put a link there can lead whoever asks to any other file of that name.
    """
    real, rest = "/", path.split("/")[::-1]
    for _ in range(PARTS):
        if not rest:
            return real
        step = os.path.normpath(os.path.join(real, rest.pop()))
        try:
            target = os.readlink(step)
            if os.lstat(step).st_uid not in users:
                return None
        except OSError:  # no link; or it is not there
            real = step
            continue
        rest.extend(target.split("/")[::-1])
        real = "/" if target.startswith("/") else real
    return None
