"""The `offline` model: not a language model, but a stand-in that drives the real loop, sandbox,
store and report if no key is set.

As root it writes the same three programs for every question, as a good root model would: look at
the context, ask sub-models about the relevant parts in one batch, and finish with cited quotes. If
more of the document must be read first, a fourth asks about the rest before it finishes again. As
sub-model it quotes the sentences that contain most of the question's words. It neither understands
nor reasons; if it finds nothing, or if something failed, its answer says so.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from rlm_integrations._concurrency.runtime import threads
from rlm_integrations.lm.offline.sentences import ParsedQuestion, extract, read_question
from rlm_integrations.lm.query import Queryable
from rlm_integrations.records import Completion, Message, Request, Usage
from rlm_integrations.run_setup import VERSION

NOTICE: Final = (
    "offline is not a language model: it finds sentences that contain the question's words, and"
    " quotes them. It neither understands nor reasons. Set OPENAI_API_KEY, or name a model, for"
    " real answers."
)
NOTHING: Final = "NOTHING FOUND"
CLOSING: Final = "This is the last turn"  # in the engine's request for a final answer

_ASK: Final = (
    "Quote the sentences of the passage that answer the question, word for word, one per line,"
    f' each after "- ".\nIf there are none, write only: {NOTHING}'
)
# For each step: its program in `programs/`, and the words before it in the reply
_STEPS: Final = {
    1: ("look", "I look at the context first."),
    2: ("map", "Now I ask about the parts that may contain the answer, in one batch."),
    3: ("reduce", "I rank the quotes, check them against the document, and finish."),
}
_REST: Final = ("rest", "More of the document must be read: I ask about the rest, and finish then.")
_MARK: Final = "¶"  # before a passage whose place is known
_STEP: Final = re.compile(r"^# Step (\d) of 3:", re.MULTILINE)
# In the engine's refusal of an answer before enough was read, and the parts that it lists
_UNREAD: Final = re.compile(
    r"^Your final answer was not taken: .* Unread: (.*)\. Send", re.MULTILINE
)
_PART: Final = re.compile(r"(?:^|, )(.+?)\[(\d+):(\d+)\]")
_ERROR: Final = re.compile(r"^\w*(?:Error|Exception|Interrupt|Exit)\w*\b.*", re.MULTILINE)


class OfflineLM(Queryable):
    """A stand-in without a language model: it finds sentences by their words, and says so.

    The same request gets the same reply. Usage is an estimate: one token for four characters.
    """

    name = "offline"
    context_window: int | None = None

    def cache_identity(self, request: Request) -> object:
        """What its programs depend on; see `CacheableLM`."""
        return [self.name, VERSION, request.role, request.query]

    async def complete(self, request: Request) -> Completion:
        """The next program as root; the best quotes as sub-model."""
        if request.role == "root":
            text = _root(request)
        else:
            # One thread: several would compete for the GIL, and each would delay the event loop.
            reading = threads("offline", 1).submit(
                _sub, _last(request.messages, "user"), request.query
            )
            text = await asyncio.wrap_future(reading)
        usage = Usage(
            input_tokens=_tokens(message.content for message in request.messages),
            output_tokens=_tokens([text]),
        )
        return Completion(text=text, usage=usage, model=self.name, finish_reason="stop")


def _tokens(texts: Iterable[str]) -> int:
    return -(-sum(map(len, texts)) // 4)


def _last(messages: tuple[Message, ...], role: str) -> str:
    return next((message.content for message in reversed(messages) if message.role == role), "")


def _root(request: Request) -> str:
    """The reply to the conversation so far: the next program, or a final that admits failure."""
    query = request.query or next(
        (message.content for message in request.messages if message.role == "user"), ""
    )
    before, seen = _last(request.messages, "assistant"), _last(request.messages, "user")
    step = int(match.group(1)) if (match := _STEP.search(before)) else 0
    is_done = f"Step {step} of 3 is done." in seen
    if CLOSING in seen[-1_000:]:
        return (
            _program(3, query)
            if step == 2 and is_done
            else _give_up("the run was stopped before its three steps were done")
        )
    if is_done:
        return _program(step + 1, query)
    if step == 3 and (unread := _UNREAD.search(seen)):
        parts = [(name, int(start), int(end)) for name, start, end in _PART.findall(unread[1])]
        return _filled(*_REST, {"unread": parts})
    # The conversation of a session still shows the programs of earlier questions.
    if step == 0 or query in seen:
        return _program(1, query)
    errors = _ERROR.findall(seen)
    return _give_up(
        f"its step {step} failed: {errors[-1][:300]}"
        if errors
        else f"its step {step} did not end as it should"
    )


def _program(step: int, query: str) -> str:
    return _filled(*_STEPS[step], _parameters(step, query, read_question(query)))


def _filled(name: str, said: str, values: Mapping[str, Any]) -> str:
    """A program with its values, after the words before it."""
    heading, body = _read_program(name)
    assignments = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    return _fenced(said, f"{heading}\n{assignments}\n{body}")


def _parameters(step: int, query: str, question: ParsedQuestion) -> dict[str, Any]:
    """The variables that a program expects to be set, beside those of the programs before it."""
    if step == 1:
        return {"question": query, "words": question.words, "names": sorted(question.names)}
    if step == 2:
        return {"ask": _ASK, "max_chunks": 200 if question.wants_all else 24}
    if question.wants_all:
        return {"max_quotes": 100, "min_share": 0.75}
    return {"max_quotes": 5, "min_share": 0.9}


@cache
def _read_program(name: str) -> tuple[str, str]:
    """The heading of a program, which is its first line, and its body."""
    source = files("rlm_integrations.lm.offline") / "programs" / f"{name}.py"
    heading, _, body = source.read_text(encoding="utf-8").strip().partition("\n")
    return heading, body


def _give_up(reason: str) -> str:
    answer = f"The offline stand-in found no answer: {reason}."
    return _fenced("I cannot go on, and say so.", f"FINAL({answer!r})")


def _fenced(said: str, code: str) -> str:
    return f"{said}\n\n```repl\n{code}\n```"


def _sub(prompt: str, query: str) -> str:
    """The best quotes for the prompt of a sub-call: one of the programs above, or any prompt with a
    question and a passage.
    """
    question, passage = _parts(prompt, query)
    quotes = extract(read_question(question), passage)
    return "\n".join(f"- {quote}" for quote in quotes) or NOTHING


def _parts(prompt: str, query: str) -> tuple[str, str]:
    """The question of a prompt, and the passage that it is about."""
    if prompt.startswith(_ASK):
        ours, _, passage = prompt.removeprefix(_ASK).partition("\n\nPassage:\n")
        return ours.removeprefix("\n\nQuestion: "), passage.removeprefix(_MARK)
    first, _, rest = prompt.strip().partition("\n\n")
    before, _, last = prompt.strip().rpartition("\n\n")
    if _is_question(first) or (not query and not _is_question(last)):
        return first, rest
    return (last, before) if _is_question(last) else (query, prompt)


def _is_question(paragraph: str) -> bool:
    return len(paragraph) <= 1_000 and (
        paragraph.startswith("Question:") or paragraph.rstrip().endswith(("?", ":"))
    )
