"""The storage of a command."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_integrations.storage import Storage


def open_storage(place: str) -> "Storage":
    """The storage of a folder or a URL.

    Raises:
        InputError: The place cannot be a storage.
        StorageError: It cannot be opened.
        MissingExtraError: The packages of the storage are not installed.
    """
    from rlm_integrations.storage import Storage

    return Storage(place)
