"""One SQLite file: opened only if it is ours and whole, never overwritten, and every fault of it said in our words.

WAL with ``synchronous=NORMAL`` survives a killed process, but a power cut may take the last moments.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

APPLICATION_ID = 0x57656C6C
"""``PRAGMA application_id`` of our files: "Well"."""

SCHEMA_VERSION = 2
"""``PRAGMA user_version``; goes up with each change of ``schema.sql``."""

_ADDED = {2: "begun"}
"""The table that a version added; an older file is given it when it is opened."""

BUSY_TIMEOUT_MS = 5000
"""How long a writer waits for another process before it says ``StoreUnavailableError``."""

_OLDEST_SQLITE = (3, 37, 0)
_CHECK_WHOLE_BELOW = 8 * 1024 * 1024
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs"})

_REFUSED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_SCHEMA})
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
    }
)


def is_environment(error: BaseException) -> bool:
    """Whether the fault is the file's or the machine's, and not that of a row."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in (_REFUSED | _UNAVAILABLE)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock."""
    return _primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def translated(error: Exception, path: Path) -> Exception:
    """A fault of the database in the words of ``StoreError``; any other error as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = _primary_code(error)
    if code in _REFUSED:
        return StoreRefusedError(f"{path}: {error}; move the file away or restore a copy, it will not be overwritten")
    if code in _UNAVAILABLE:
        return StoreUnavailableError(f"{path}: {error}")
    return StoreError(f"{path}: {error}")


def _primary_code(error: sqlite3.Error) -> int:
    # Misuse found by the Python module itself has no code; it is then the fault of the arguments.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def in_our_words(path: Path) -> Iterator[None]:
    """Translate what the database raises inside."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error


def temporary() -> Path:
    """A new private file, in memory where the system offers that."""
    shared = Path("/dev/shm")  # noqa: S108  (the file itself is made by mkdtemp, private to this user)
    parent = shared if os.access(shared, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="stepwell-", dir=parent)) / "store.db"
    create(path)
    return path


def remove(path: Path) -> None:
    """Delete a temporary file, what SQLite keeps beside it, and its directory."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
    with suppress(OSError):
        path.parent.rmdir()


def ensure(path: Path) -> None:
    """Make the file if there is none; refuse one that is not ours, not whole, or too new.

    Raises ``StoreRefusedError``; the message names the file and what to do.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreRefusedError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    _refuse_network(path)
    if not path.exists():
        create(path)
    _check(path)


def create(path: Path) -> None:
    """Make an empty store. It appears under its name only when it is whole, so no other process sees half of it."""
    if not path.parent.is_dir():
        raise StoreRefusedError(f"{path}: there is no directory {path.parent}")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise StoreRefusedError(f"{path}: cannot be made: {error.strerror}") from error
    os.close(handle)
    made = Path(name)
    try:
        _lay_out(made)
        _give_name(made, path)
    finally:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                made.with_name(made.name + suffix).unlink()


def _schema() -> str:
    return resources.files(__package__).joinpath("schema.sql").read_text("utf-8")


def _lay_out(path: Path) -> None:
    with in_our_words(path):
        conn = sqlite3.connect(path, isolation_level=None)
        try:
            if conn.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise StoreRefusedError(f"{path.parent}: SQLite cannot use a write-ahead log here; choose a local disk")
            conn.executescript(
                f"BEGIN IMMEDIATE; {_schema()} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        finally:
            conn.close()


def _give_name(made: Path, path: Path) -> None:
    # A link fails if the name is taken, whereas a rename would replace what another process has just made.
    try:
        path.hardlink_to(made)
    except FileExistsError:
        return
    except OSError:
        if not path.exists():
            made.rename(path)


def _check(path: Path) -> None:
    if not path.is_file():
        raise StoreRefusedError(f"{path} is not a file")
    with in_our_words(path):
        conn = connect(path)
        try:
            ours = conn.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            version = conn.execute("PRAGMA user_version").fetchone()[0]
            if not ours:
                raise StoreRefusedError(f"{path} is not a Stepwell file; choose another name, it is left as it is")
            if version > SCHEMA_VERSION:
                raise StoreRefusedError(
                    f"{path} has schema {version}, this Stepwell knows {SCHEMA_VERSION}: use the newer Stepwell"
                )
            if path.stat().st_size <= _CHECK_WHOLE_BELOW:
                (found,) = conn.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise StoreRefusedError(f"{path} is damaged ({found}): restore a copy or choose another name")
            if version < SCHEMA_VERSION:
                _bring_up_to_date(conn)
        finally:
            conn.close()


def _bring_up_to_date(conn: sqlite3.Connection) -> None:
    """Add what later versions have, in one transaction; of two processes at once the second finds nothing to do."""
    schema = _schema()
    conn.execute("BEGIN IMMEDIATE")
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    for number in range(version + 1, SCHEMA_VERSION + 1):
        begin = schema.index(f"CREATE TABLE {_ADDED[number]} (")
        conn.execute(schema[begin : schema.index(";", begin)])
    conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    conn.execute("COMMIT")


def connect(path: Path, *, durable: bool = True, cached_statements: int = 128) -> sqlite3.Connection:
    """A connection in autocommit mode, usable by any one thread at a time; transactions are begun by hand."""
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_MS / 1000,
        check_same_thread=False,
        cached_statements=cached_statements,
    )
    conn.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
    return conn


def _refuse_network(path: Path) -> None:
    """WAL needs memory that all processes share; over a network it corrupts the file in silence (SQLite's own docs)."""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    best, kind = "", ""
    parent = str(path.absolute().parent.resolve())
    for line in mounts:
        _, point, fstype, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = parent == point or parent.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    if kind in _NETWORK:
        raise StoreRefusedError(
            f"{path} lies on a network file system ({kind}), where WAL is not safe: use a local disk"
        )
