"""What the model is told beside its code's output: limits, mistakes, and what to do about them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rlm_integrations.engine.parsing import Note
from rlm_integrations.engine.parsing.python import is_cut_string
from rlm_integrations.engine.prompts.observation import variables_shown
from rlm_integrations.engine.prompts.template import DEFAULT_PROMPT, fill_template
from rlm_integrations.records import SpanRef
from rlm_integrations.sandbox.base import ExecutionError

_REBOUND_TOLD = 5
_UNREAD_TOLD = 20
FINISH_IN_BLOCK = "in a block: FINAL(value, evidence=[…]) or FINAL_VAR(name)"
_TURNS_TOLD = 3  # how many turns are left when the model is reminded of it


def notes(about: Sequence[Note]) -> list[str]:
    """What the model is told about its own reply, the same thing once."""
    languages = Counter(each.detail for each in about if each.kind == "other_language")
    told = [
        _other_language(each.detail, languages[each.detail])
        if each.kind == "other_language"
        else note(each)
        for each in about
    ]
    return list(dict.fromkeys(told))


def note(about: Note) -> str:
    """What the model is told about its own reply."""
    match about.kind:
        case "unclosed_fence":
            return (
                f"{_not_run(about)} its fence was not closed. Write it again, shorter if it was "
                f"cut, and close it with ```."
            )
        case "not_python":
            return (
                f"{_not_run(about)} it is not valid "
                f"Python.\n{about.detail}{_MULTILINE if is_cut_string(about.detail) else ''}"
            )
        case "quotation":
            return (
                f"Your python block of one line was taken for a quotation and not run: it is not "
                f"valid Python.\n{about.detail}"
            )
        case "other_language":
            return _other_language(about.detail, 1)
        case "chat_token":
            return (
                f"Your reply was cut at {about.detail}: what followed was written in another's "
                f"place."
            )
        case "invented_output":
            return (
                f"Your reply was cut at {about.detail!r}: you wrote the REPL's output yourself. "
                "What it really printed is in this message."
            )
        case "final_refused":
            return (
                "Your final answer was not taken, because a block of the same reply failed. Mend "
                "the block first."
            )
        case "final_beside_code":
            return (
                "Your `final` was not taken, because the reply had `code`, too, whose output you "
                "had not seen. Give one of them."
            )
        case "no_object":
            return (
                "Your reply was not a JSON object with `reasoning`, `code` and `final`. Write it "
                "again as one, shorter if it was cut."
            )


_MULTILINE = (
    '\nA string of several lines needs triple quotes, """…"""; or put it into a variable and '
    'finish with FINAL_VAR("name").'
)


def _not_run(about: Note) -> str:
    if about.blocks == 1:
        return "Your block was not run:"
    return (
        f"Block {about.block} of {about.blocks} was not "
        f"run{', nor was what follows' if about.block < about.blocks else ''}:"
    )


def _other_language(language: str, count: int) -> str:
    blocks = f"Your {language} block was" if count == 1 else f"Your {count} {language} blocks were"
    return f"{blocks} not run: only Python runs here, in a ```repl block."


def rebound(names: Sequence[str]) -> str:
    """What becomes of names of the REPL that a block has bound to something else."""
    owners = ["the document" if name.startswith("context") else "the REPL's own" for name in names]
    lines = [
        f"`{name}` is {owner} again; use another name."
        for name, owner in zip(names, owners, strict=True)
    ]
    return "\n".join(lines[:_REBOUND_TOLD])


NOTHING_TO_DO = (
    "Your reply had neither a block of code nor a final answer. Write code in a ```repl block, or "
    "finish in one with "
    "FINAL(value, evidence=[…])."
)
SEVERAL_FINALS = (
    "Your final answer was not taken, because the code called FINAL several times, with different "
    "values. Call it once, with one value "
    "that holds the whole answer."
)


def repeated(*, same_result: bool) -> str:
    """What a model is told that says the same again."""
    result = ", and so is its result" if same_result else ""
    return (
        f"Your reply was the same as the one before, word for word{result}. Do something else, or "
        f"finish with what you have."
    )


def turns_left(turns: int) -> list[str]:
    """A reminder of how many turns are left, once they are few."""
    if not 0 < turns <= _TURNS_TOLD:
        return []
    return [f"{turns} turns are left." if turns > 1 else "One turn is left: finish in it."]


def budget_left(amounts: Mapping[str, float]) -> str:
    """What the run may still spend.

    Args:
        amounts: How much, of "calls", "tokens", "dollars" and "seconds".
    """
    told = [
        f"${amount:.2g}" if kind == "dollars" else f"{math.ceil(amount):,} {kind}"
        for kind, amount in amounts.items()
    ]
    return f"Left of the budget, your own replies included: {', '.join(told)}."


def cut_replies(count: int) -> str:
    """That replies are not whole."""
    replies = "One reply of a model was" if count == 1 else f"{count:,} replies of models were"
    return f"{replies} cut before the end (`reply.truncated` is True). Ask for less in one prompt."


def unknown_variable(name: str, kinds: Mapping[str, str]) -> str:
    """Why FINAL_VAR of this name is no final."""
    variables = variables_shown(kinds) or " There are none yet."
    return (
        f"FINAL_VAR({name!r}): there is no such variable.{variables} For a string, use "
        f"FINAL({name!r})."
    )


def unresolved(error: ExecutionError | None) -> str:
    """Why the value of a final in prose is not known."""
    told = f"{error.type}: {error.message}" if error is not None else "it has no value"
    return f"Your final answer was not taken, because its code failed.\n{told}"


def invalid(error: str) -> str:
    """Why a typed answer was not taken."""
    return (
        f"Your final answer was not taken, because it does not fit the schema:\n{error}\nGive a "
        f"value to FINAL that does."
    )


def tell_too_long(error: str) -> str:
    """Why an answer was not taken that is too long."""
    return f"Your final answer was not taken: {error}. Give a shorter one to FINAL."


def must_be_read(share: float) -> str:
    """That a share of the document must be read before a final answer."""
    return (
        f"{100 * share:g}% of the document must be read before you finish: each part must be in a "
        "prompt that you send to a model, or be printed. What only code searches is not read."
    )


def unread(read: str, share: float, parts: Sequence[SpanRef]) -> str:
    """Why an answer was not taken before enough was read.

    Args:
        read: How much was read, such as "82%".
        share: The share that must be read.
        parts: What is unread.
    """
    listed = ", ".join(f"{each.source}[{each.start}:{each.end}]" for each in parts[:_UNREAD_TOLD])
    more = len(parts) - _UNREAD_TOLD
    return (
        f"Your final answer was not taken: {read_too_little(read, share)}. "
        f"Unread: {listed}{f', and {more:,} more parts' if more > 0 else ''}. Send these parts to "
        "a model, or print them; then finish."
    )


def read_too_little(read: str, share: float) -> str:
    """How much of the document was read, if more is required."""
    return f"{read} of the document was read, and {100 * share:g}% must be"


def closing(
    reason: str, template: str = DEFAULT_PROMPT.closing, finish: str = FINISH_IN_BLOCK
) -> str:
    """The request for a best answer when a run must end.

    Args:
        reason: Why it must.
        template: The template; see `Prompt`.
        finish: How to finish.
    """
    return fill_template(template, {"reason": reason, "finish": finish})


def compacted(characters: int) -> str:
    """What stands for an old output that the history no longer holds."""
    return (
        f"[{characters:,} characters of output are no longer shown; variables still hold their "
        f"values]"
    )


def compacted_reply(text: str, kept: int) -> str:
    """What the history still holds of an old reply."""
    if len(text) <= kept:
        return text
    fence = "\n```" if text[:kept].count("```") % 2 else ""
    return (
        f"{text[:kept]}{fence}\n[… {len(text) - kept:,} further characters of this message are no "
        f"longer shown …]"
    )


WITHDRAWN = (
    "This question was cancelled before it was answered. Do not answer it; what its code had bound "
    "before may still be there."
)
NEW_REPL = "The REPL is a new one: variables of earlier questions are gone."
UNREADABLE = (
    "The file of the document has changed since it was read. `context` still has the text, but "
    "quotes can no longer be checked: "
    "`cite` finds nothing, and evidence is dropped. Finish without it."
)


def unfinished(count: int) -> str:
    """Where the replies are that came before their block ended."""
    return (
        f"Before that, {count:,} of its prompts had been answered, and the code did not get the "
        f"replies. "
        "The next block has them in the dict `unfinished_replies`, by prompt: ask only what is not "
        "in there."
    )
