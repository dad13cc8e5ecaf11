"""Edits of a text file that several programs may change at once, and that a crash must not spoil."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def edit_lines(path: str | Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replace the lines of a file by `change` of them; a file that is not there yet has none.

    Writers wait for each other. Readers see the old file or the new one, never a part. Mode, byte order mark
    and line endings stay; a symbolic link stays one.

    Raises ValueError (read-only, no UTF-8 text) and OSError.
    """
    path = Path(os.path.realpath(path))
    make_room(path)
    with _locked(path):
        raw = path.read_bytes() if path.exists() else b""
        try:
            text = raw.decode("utf-8")
        except UnicodeError:
            raise ValueError(f"{path}: not UTF-8 text: save it as plain text, UTF-8") from None
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        end = "\r\n" if "\r\n" in text else "\n"
        lines = text.removeprefix(mark).splitlines()
        changed = change(list(lines))
        if changed != lines:
            _write(path, mark + "".join(line + end for line in changed))


def make_room(path: Path) -> None:
    """The folder for a file that is to be written, before the work for it is done. Raises as check_writable,
    and OSError."""
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path) -> None:
    """Raises ValueError for a folder, a file inside a file, and one that its owner has made read-only."""
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"{path.parent}: a file; name a folder to write into")
    if path.is_dir():
        raise ValueError(f"{path}: a folder; name a file")
    # The mode counts for root too, whom the system would let write.
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise ValueError(f"{path}: the file is read-only: chmod u+w it, or name another file")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold FILE.lock beside the file. It goes away with its holder; who waited on it then takes a new one."""
    name = path.with_name(f".{path.name}.lock")
    while True:
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(
                f"{path.parent}: cannot be written into ({error.strerror}); name another file"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is(lock, name):
                break
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(lock)


def _is(descriptor: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False


def _write(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
