"""Runs, their REPLs and the queue's workers on the machines of a Ray cluster."""

from rlm_integrations.errors import MissingExtraError

try:
    import ray  # noqa: F401 - only to report a missing package
except ImportError as error:
    raise MissingExtraError("rlm_integrations.ray", "ray") from error

from rlm_integrations.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
