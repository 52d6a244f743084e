"""Runs code in a new interpreter that reports every warning."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = ["-X", "dev", "-W", "error"]
# Python 3.12 on every fork in a process with threads
OPTIONS += ["-W", "ignore:This process:DeprecationWarning"]
OPTIONS += ["-W", "ignore::DeprecationWarning:pydantic"]  # while openai is imported
# Under -X dev asyncio reports every step above a tenth of a second, which is normal on a busy
# machine.
QUIET = "import logging; logging.getLogger('asyncio').addFilter(lambda record: 'Executing' not in record.getMessage())\n"


def run_script(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """The output of the code, and its exit code."""
    command = [sys.executable, *OPTIONS, "-c", QUIET + code, *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT
    )
