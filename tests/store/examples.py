"""Settings of the store's property tests: the same examples each time, without a time limit; or,
in `make soak`, RLM_EXAMPLES times as many that are new each time.
"""

import os

from hypothesis import settings


def examples(count: int) -> settings:
    """Settings for this number of examples."""
    times = int(os.environ.get("RLM_EXAMPLES", "1"))
    return settings(max_examples=count * times, deadline=None, derandomize=times == 1)
