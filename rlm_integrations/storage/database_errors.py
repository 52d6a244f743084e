"""Errors of databases as errors of this library, which say what to do and never show a password."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from rlm_integrations.errors import DamagedDataError, StorageError, StorageUnavailableError

Kind = Literal[
    "damaged", "denied", "duplicate", "full", "no_file", "other", "packet", "passing", "readonly"
]

# SQLite's names of its errors, by their first words
_SQLITE: dict[str, Kind] = {
    "SQLITE_BUSY": "passing",
    "SQLITE_LOCKED": "passing",
    "SQLITE_FULL": "full",
    "SQLITE_READONLY": "readonly",
    "SQLITE_CANTOPEN": "readonly",
    "SQLITE_PERM": "readonly",
    "SQLITE_NOTADB": "no_file",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_CONSTRAINT": "duplicate",
}
# The first characters of SQLSTATE, the longest match first
_SQLSTATES: dict[str, Kind] = {
    "25006": "readonly",
    "28": "denied",
    "3D": "denied",
    "42501": "denied",
    "53100": "full",
    "08": "passing",
    "23": "duplicate",
    "40": "passing",
    "53": "passing",
    "57": "passing",
    "58": "passing",
    "XX001": "damaged",
    "XX002": "damaged",
}
# MariaDB's and MySQL's own numbers, whose SQLSTATE says less
_MYSQL: dict[int, Kind] = {
    1020: "passing",  # the record has changed since it was read
    1021: "full",
    1044: "denied",
    1049: "denied",
    1114: "full",
    1142: "denied",
    1153: "packet",
    1194: "damaged",
    1203: "passing",  # too many connections of this user
    1205: "passing",  # the wait for a lock was too long
    1213: "passing",  # a deadlock, which another transaction won
    1226: "passing",
    1290: "readonly",
    1712: "damaged",
    1836: "readonly",
    1877: "damaged",
    1927: "passing",  # the connection was killed
}
# libpq reports what happens before a connection is open by its words alone
_WORDS: dict[str, Kind] = {
    "password authentication failed": "denied",
    "no password supplied": "denied",
    "no pg_hba.conf entry": "denied",
    "access denied": "denied",
    "login failed": "denied",
    "does not exist": "denied",
    "permission denied": "denied",
    "unknown database": "denied",
}
_ADVICE: dict[Kind, str] = {
    "damaged": "the database is damaged; restore it from a backup",
    "denied": "check the user, the password and the database's name in the URL",
    "duplicate": "a row of this key exists already, or a value is missing",
    "full": "the disk is full; free some space and call again; what was acknowledged is kept",
    "other": "the statement failed",
    "packet": "a value is larger than the server's max_allowed_packet: raise it, or pass lake=",
    "passing": "the database cannot be reached now; check that it is running, and call again",
    "readonly": "it cannot be written; check the permissions of the folder and its files",
    "no_file": "the file is no SQLite database; name another folder or file",
}


class DuplicateRowError(StorageError):
    """A row of the same key is there already."""


_ERRORS: dict[Kind, type[StorageError]] = {
    "damaged": DamagedDataError,
    "duplicate": DuplicateRowError,
    "passing": StorageUnavailableError,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A database as messages name it.

    Attributes:
        url: Its URL; the password is never shown.
        shown: The folder or file that the user named, if it was one.
    """

    url: URL
    shown: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of an SQLite file."""
        return Path(self.url.database or "").parent

    def __str__(self) -> str:
        return self.shown or self.url.render_as_string(hide_password=True)

    def without_password(self, message: str) -> str:
        """The message of a driver, which may quote parts of the URL."""
        password = self.url.password
        for secret in {password, _as_quoted(self.url)} if password else ():
            message = message.replace(str(secret), "***")
        return message


def _as_quoted(url: URL) -> str:
    """The password as the URL writes it, with %-escapes."""
    return (
        url.render_as_string(hide_password=False)
        .partition("://")[2]
        .rpartition("@")[0]
        .partition(":")[2]
    )


def kind_of(error: SQLAlchemyError) -> Kind:
    """What happened: "passing" means that the same statement may succeed later."""
    original = error.orig if isinstance(error, DBAPIError) else None
    name = getattr(original, "sqlite_errorname", None)
    if isinstance(name, str):
        return next((kind for start, kind in _SQLITE.items() if name.startswith(start)), "other")
    number = original.args[0] if original is not None and original.args else None
    if isinstance(number, int) and (known := _MYSQL.get(number)) is not None:
        return known
    state = getattr(original, "sqlstate", None)
    if isinstance(state, str):
        found = max((start for start in _SQLSTATES if state.startswith(start)), key=len, default="")
        return _SQLSTATES.get(found, "other")
    if isinstance(error, IntegrityError):
        return "duplicate"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "passing"
    words = str(original).lower()
    if kinds := [kind for each, kind in _WORDS.items() if each in words]:
        return kinds[0]
    return "passing" if isinstance(error, OperationalError | InterfaceError) else "other"


def storage_error(error: SQLAlchemyError, target: Target) -> StorageError:
    """The error of this library for a driver's error. Raise it `from None`: the driver's own may
    show the password.
    """
    kind = kind_of(error)
    original = error.orig if isinstance(error, DBAPIError) else error
    words = " ".join(target.without_password(str(original)).split())
    message = f"storage in {target}: {_ADVICE[kind]} ({words})"
    return _ERRORS.get(kind, StorageError)(message)
