"""The exit codes of the command line."""

from typing import Final

ANSWERED: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
STOPPED: Final = 3
MODEL_ERROR: Final = 4
SANDBOX: Final = 5
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

_BY_STOP_REASON: Final = {
    "final": ANSWERED,
    "model_error": MODEL_ERROR,
    "sandbox_lost": SANDBOX,
    "cancelled": INTERRUPTED,
}

HELP: Final = f"""\
exit codes:
  {ANSWERED}    answered
  {FAILED}    another failure, such as writing --save
  {BAD_INPUT}    wrong usage or invalid input; nothing was spent
  {STOPPED}    stopped by a limit (budget, turns, repetition); the best answer so far is printed
  {MODEL_ERROR}    the model cannot be called, or gave no usable reply
  {SANDBOX}    the sandbox is not available on this machine, or was lost
  {INTERRUPTED}  interrupted by Ctrl-C
  {PIPE_CLOSED}  stdout was closed by its reader, such as `head`
"""


def exit_code_of(stop_reason: str) -> int:
    """The exit code for a run that ended for this reason."""
    return _BY_STOP_REASON.get(stop_reason, STOPPED)
