"""How commands and recipes tell an expected error: a line on stderr that says what to do, exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def warn(message: str) -> None:
    """Each line of the message on stderr."""
    for line in message.splitlines():
        print(f"asr: {line}", file=sys.stderr)


def fail(message: str) -> NoReturn:
    warn(message)
    raise SystemExit(2)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """ValueError and OSError of what is inside are the user's to mend: told without a traceback."""
    try:
        yield
    except ValueError as error:
        fail(str(error))
    except BrokenPipeError:
        raise  # who reads has read enough
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
