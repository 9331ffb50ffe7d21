"""The one reader of input files, whatever their kind.

A file is named by whoever runs the program: it may be missing, a folder, a pipe that never ends, a
device, larger than memory, unreadable, or of a name that no file can have. All kinds of input are
opened here, so that each of these is one line for each of them.
"""

from __future__ import annotations

import json
import os
import stat
from typing import IO, Any

from pimsim.config.errors import InputError, reason
from pimsim.config.paths import Pathlike, given_path
from pimsim.config.resources import display_path

__all__ = ["decode_text", "open_input", "parse_json", "read_bytes", "read_text"]

MAX_BYTES = 2**30
"""Most that a file may hold which is read whole, unless its kind allows less."""

_BINARY = getattr(os, "O_BINARY", 0)
_NO_FILE = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_input(
    path: Pathlike, what: str = "a file", max_bytes: int | None = MAX_BYTES
) -> IO[bytes]:
    """A file opened to be read: a regular one, and not too large.

    Parameters
    ----------
    path
        Of the file, ``~`` allowed.
    what
        Is expected, as in "a YAML file".
    max_bytes
        Most that it may hold; None: any size.

    Raises
    ------
    InputError
        For what is not there, no file, too large, or unreadable.
    """
    found = given_path(path)
    shown = display_path(found)
    try:
        # a pipe without a writer would wait for one
        handle = os.open(found, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except FileNotFoundError:
        raise InputError(f"{shown}: no such file; {what} is expected") from None
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {reason(error)}") from None
    try:
        status = os.fstat(handle)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            raise InputError(f"{shown}: is a directory; {what} is expected")
        if kind != stat.S_IFREG:
            raise InputError(f"{shown}: is {_NO_FILE.get(kind, 'no file')}; {what} is expected")
        if max_bytes is not None and status.st_size > max_bytes:
            raise InputError(f"{shown}: larger than {max_bytes} bytes, the most allowed")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Pathlike, what: str = "a file", max_bytes: int = MAX_BYTES) -> bytes:
    """All of a regular file.

    Parameters
    ----------
    path
        Of the file, ``~`` allowed.
    what
        Is expected, as in "a YAML file".
    max_bytes
        Most that it may hold.

    Raises
    ------
    InputError
        As ``open_input`` does.
    """
    shown = display_path(given_path(path))
    with open_input(path, what, max_bytes) as stream:
        try:
            # files below /proc say that they are empty
            content = stream.read(max_bytes + 1)
        except OSError as error:
            raise InputError(f"{shown}: cannot be read: {reason(error)}") from None
    if len(content) > max_bytes:
        raise InputError(f"{shown}: larger than {max_bytes} bytes, the most allowed")
    return content


def read_text(path: Pathlike, what: str = "a text file", max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 text, without the mark of its byte order.

    Parameters
    ----------
    path
        Of the file, ``~`` allowed.
    what
        Is expected, as in "a YAML file".
    max_bytes
        Most that it may hold.

    Raises
    ------
    InputError
        As ``open_input`` does, and for what is no UTF-8.
    """
    return decode_text(read_bytes(path, what, max_bytes), display_path(given_path(path)))


def decode_text(content: bytes, label: str) -> str:
    """UTF-8 as text, without the mark of its byte order.

    Parameters
    ----------
    content
        Of a file.
    label
        Of the file, for the message.

    Raises
    ------
    InputError
        With the line of the first byte that is none.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{label}:{line}: not UTF-8 text (byte {error.start}, 0x{content[error.start]:02x})"
        ) from None


def parse_json(content: str | bytes, label: str, first_line: int = 1) -> Any:
    """JSON as Python's values.

    Parameters
    ----------
    content
        The text, or its UTF-8.
    label
        Of the file, for messages.
    first_line
        The text's place in the file.

    Raises
    ------
    InputError
        For what is no JSON, is nested too deep, or holds a number that is too long.
    """
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise InputError(f"{label}: no JSON: line {line}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise InputError(f"{label}: no JSON: nested too deep") from None
    except ValueError as error:  # a whole number of more than 4300 digits
        raise InputError(f"{label}: no JSON: {error}") from None
