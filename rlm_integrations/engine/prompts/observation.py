"""What the model is shown of its code's output."""

from collections.abc import Mapping, Sequence

from rlm_integrations.sandbox.base import ExecutionResult

_VARIABLES_LISTED = 30


def observation(results: Sequence[ExecutionResult], *, written: int, shown: int) -> str:
    """What the blocks of one reply did, as the model sees it.

    Args:
        results: Of the blocks that ran, in order.
        written: How many blocks there were to run.
        shown: How many characters of output are shown, in all blocks together; what is left out is
            counted.
    """
    parts = []
    shares = output_shares([len(result.output) + result.dropped for result in results], shown)
    for number, (result, share) in enumerate(zip(results, shares, strict=True), 1):
        of = f" of block {number} of {written}" if written > 1 else ""
        printed = cut_output(result.output.rstrip("\n"), share, result.dropped)
        parts.append(
            f"REPL output{of}:\n{printed}"
            if printed
            else f"REPL output{of}: nothing was printed.{variables_shown(result.locals)}"
        )
        if result.error is not None:
            parts.append(
                result.error.traceback.rstrip() or f"{result.error.type}: {result.error.message}"
            )
        if result.status == "lost":
            parts.append("The REPL is a new one: variables of earlier blocks are gone.")
    if results[-1].status != "ok" and len(results) < written:
        parts.append(f"The code after block {len(results)} was not run, because it failed.")
    return "\n".join(parts)


def output_shares(lengths: Sequence[int], shown: int) -> list[int]:
    """How many characters of each output are shown: what short ones leave is for the long ones."""
    shares = [0] * len(lengths)
    for place, at in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        shares[at] = min(lengths[at], shown // (len(lengths) - place))
        shown -= shares[at]
    return shares


def cut_output(text: str, shown: int, dropped: int = 0) -> str:
    """The beginning and the end of an output or a reply, with a count of the characters between."""
    left_out = len(text) - shown
    if left_out <= 0 and not dropped:
        return text
    head = text[: shown * 3 // 4] if left_out > 0 else text
    tail = text[len(text) - shown // 4 :] if left_out > 0 and shown >= 4 and not dropped else ""
    hidden = len(text) + dropped - len(head) - len(tail)
    return (
        f"{head}\n[… {hidden:,} of {len(text) + dropped:,} characters left out …]\n{tail}".rstrip(
            "\n"
        )
    )


def variables_shown(kinds: Mapping[str, str]) -> str:
    """A sentence that lists variables and their types."""
    if not kinds:
        return ""
    listed = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:_VARIABLES_LISTED])
    return f" Variables: {listed}{', …' if len(kinds) > _VARIABLES_LISTED else ''}."
