"""Cases of a rule that only `make test-exhaustive` runs."""

from typing import Any

import pytest


def exhaustive(value: object) -> Any:
    """The parameter of a test, marked."""
    return pytest.param(value, marks=pytest.mark.exhaustive)
