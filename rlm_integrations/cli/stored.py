"""The storage of a command, and the runs that its arguments name."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rlm_integrations.errors import InputError

if TYPE_CHECKING:
    from rlm_integrations.corpus import Corpus
    from rlm_integrations.result import RLMResult
    from rlm_integrations.storage import Storage

RUN_HELP: Final = "a file that --save wrote, or the id of a stored run, as `runs` lists it"


def open_storage(place: str) -> "Storage":
    """The storage of a folder or a URL.

    Raises:
        InputError: The place cannot be a storage.
        StorageError: It cannot be opened.
        MissingExtraError: The packages of the storage are not installed.
    """
    from rlm_integrations.storage import Storage

    return Storage(place)


def existing_storage(place: str) -> "Storage":
    """The storage of a folder or a URL; no folder is created.

    Raises:
        InputError: There is none.
    """
    if "://" not in place and not Path(place).is_dir():
        raise InputError(f"there is no storage in {place!r}: name its folder with --storage")
    return open_storage(place)


def load_run(name: str, place: str) -> "RLMResult":
    """The run that a file has, or that the storage has under this id.

    Raises:
        InputError: There is no such file or run, or the file is not a run.
        StorageError: The run has no result yet, or cannot be read.
    """
    from rlm_integrations.result import RLMResult

    if is_file(name):
        return RLMResult.load(name)
    with _existing_storage(name, place) as storage:
        return storage.run(name)


def load_document(name: str, place: str) -> "Corpus | None":
    """The document of a run, to be closed by the caller; None if the storage did not keep it, or
    if the run is in a file.

    Raises:
        InputError: There is no such file or run.
        StorageError: It cannot be read.
    """
    if is_file(name):
        return None
    with _existing_storage(name, place) as storage:
        return storage.document(name)


def is_file(name: str) -> bool:
    """Whether the name is that of a file, not of a run.

    Raises:
        InputError: It is that of a file that does not exist.
    """
    path = Path(name)
    if path.is_file():
        return True
    if path.is_fifo() or path.is_char_device():
        raise InputError(f"{name!r} is not a regular file: write the run to one")
    if path.suffix == ".json":
        raise InputError(f"there is no file {name!r}")
    return False


def _existing_storage(name: str, place: str) -> "Storage":
    """The storage that may have a run; none is created."""
    if "://" not in place and not Path(place).is_dir():
        raise InputError(f"there is neither a file {name!r} nor a storage in {place!r}")
    return open_storage(place)
