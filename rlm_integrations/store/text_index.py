"""Chooses the full-text index that this Python offers."""

import warnings

from rlm_integrations.store.fulltext import FullText
from rlm_integrations.store.scan import Scan
from rlm_integrations.store.text import TextIndex


def text_index() -> TextIndex:
    """An FTS5 index; without FTS5 a `Scan`, with a warning."""
    try:
        import sqlite3
    except ImportError as error:  # this Python was built without it
        reason = str(error)
    else:
        try:
            return FullText()
        except sqlite3.OperationalError as error:
            reason = f"SQLite {sqlite3.sqlite_version}: {error}"
    warnings.warn(
        f"this Python lacks full-text search ({reason}): text searches read every object",
        RuntimeWarning,
        stacklevel=2,
    )
    return Scan()
