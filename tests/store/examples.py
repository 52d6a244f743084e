"""How the property tests of the store look for examples: the same ones each time, however slow the
machine.
"""

from hypothesis import settings


def examples(count: int) -> settings:
    """Settings for so many examples."""
    return settings(max_examples=count, deadline=None, derandomize=True)
