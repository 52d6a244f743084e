"""Settings of the store's property tests: the same examples each time, without a time limit."""

from hypothesis import settings


def examples(count: int) -> settings:
    """Settings for this number of examples."""
    return settings(max_examples=count, deadline=None, derandomize=True)
