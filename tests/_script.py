"""Code in an interpreter of its own, which says everything that it has to complain about."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = ["-X", "dev", "-W", "error"]
# Python 3.12 on every fork in a process with threads
OPTIONS += ["-W", "ignore:This process:DeprecationWarning"]
OPTIONS += ["-W", "ignore::DeprecationWarning:pydantic"]  # while openai is imported
# Under -X dev asyncio reports every step of a tenth of a second, as there are on a busy machine.
QUIET = "import logging; logging.getLogger('asyncio').addFilter(lambda record: 'Executing' not in record.getMessage())\n"


def run_script(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """What it printed, and its exit code."""
    command = [sys.executable, *OPTIONS, "-c", QUIET + code, *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT
    )
