"""Storage of runs, jobs and artifacts: a database for what is searched, a lake for what is large."""

from rlm_integrations.errors import MissingExtraError

try:
    import alembic  # noqa: F401 - these only report a missing package
    import sqlalchemy  # noqa: F401
    import yaml  # noqa: F401
    import zstandard  # noqa: F401
except ImportError as error:
    raise MissingExtraError("rlm_integrations.storage", "storage") from error
