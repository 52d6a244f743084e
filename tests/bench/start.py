"""The start: the cost of importing the package, compared with a bare interpreter."""

import statistics
import subprocess
import sys

from tests.bench.table import Row


def processor_time(code: str) -> float:
    """The CPU seconds of an interpreter that runs this: the median of seven."""
    command = [sys.executable, "-c", f"import time\n{code}\nprint(time.process_time())"]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(7)
    )


def run() -> list[Row]:
    return [
        Row(
            "import rlm_integrations, processor time",
            (processor_time("import rlm_integrations") - processor_time("")) * 1e3,
            150,
            "ms",
        )
    ]
