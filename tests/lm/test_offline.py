"""The offline model: it does not pretend to understand, and it finds and cites needles."""

import asyncio
import contextlib
import io
import random
import re
import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rlm_integrations.lm.base import LM
from rlm_integrations.lm.offline import NOTHING, OfflineLM, model
from rlm_integrations.lm.offline.sentences import fold_accents
from rlm_integrations.records import LLMError, Message, Request, SpanRef
from tests.lm._haystack import ASKED, LISBON, WORDS, haystack

NONE = "Nothing in the document answers this"


@dataclass
class Run:
    value: str = ""
    evidence: list[SpanRef] = field(default_factory=list)
    quotes: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


class Finished(BaseException):
    pass


def ask(
    question: str,
    context: str | list[str],
    *,
    sub: Callable[[str], str] | None = None,
    breaks: int = 0,
    close: int = 0,
) -> Run:
    """A small version of the loop: the root's programs run in one namespace, and their sub-calls go
    to the model itself. `sub` answers sub-calls instead; at turn `breaks` the program fails; at
    turn `close` the root gets the closing request.
    """
    lm, run = OfflineLM(), Run()
    sources = [context] if isinstance(context, str) else context

    async def complete_all(prompts: list[str]) -> list[str]:
        requests = [
            Request(messages=(Message("user", prompt),), query=question, depth=1)
            for prompt in prompts
        ]
        return [completion.text for completion in await asyncio.gather(*map(lm.complete, requests))]

    def llm_batch(
        prompts: list[str], max_concurrent: int = 10, model: str | None = None
    ) -> list[str]:
        run.prompts.extend(prompts)
        return [sub(prompt) for prompt in prompts] if sub else asyncio.run(complete_all(prompts))

    def cite(quote: str, source: str | None = None) -> SpanRef | None:
        pattern = re.compile(r"\s+".join(map(re.escape, quote.split())))
        matches = ((number, pattern.search(text)) for number, text in enumerate(sources))
        return next(
            (SpanRef(f"context_{number}", *match.span()) for number, match in matches if match),
            None,
        )

    def final(value: str, evidence: list[SpanRef] = []) -> None:  # noqa: B006 - read only
        run.value, run.evidence = value, list(evidence)
        raise Finished

    names: dict[str, Any] = {
        "context": context,
        "llm_batch": llm_batch,
        "cite": cite,
        "FINAL": final,
    }
    messages = [Message("system", "You have a REPL."), Message("user", f"The question: {question}")]
    for turn in range(1, 7):
        if turn == close:
            messages[-1] = Message("user", f"{messages[-1].content}\n\n{model.CLOSING}: finish.")
        reply = asyncio.run(
            lm.complete(Request(messages=tuple(messages), role="root", query=question))
        ).text
        run.replies.append(reply)
        match = re.fullmatch(r".*?```repl\n(.*)\n```", reply, re.DOTALL)
        assert match is not None
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                if turn == breaks:
                    raise NameError("name 'llm_batch' is not defined")
                exec(match.group(1), names)
        except Finished:
            break
        except Exception:  # noqa: BLE001 - as a sandbox does
            printed.write(traceback.format_exc())
        run.seen.append(printed.getvalue())
        messages += [Message("assistant", reply), Message("user", f"Output:\n{printed.getvalue()}")]
    spans = [(int(span.source.removeprefix("context_")), span) for span in run.evidence]
    run.quotes = [sources[number][span.start : span.end] for number, span in spans]
    return run


@pytest.fixture(scope="module")
def ten_megabytes() -> str:
    needles = (
        LISBON,
        "The access code of the Porto vault is 11975.",
        "The Oslo depot was built in 1901. Its combination is 77421.",
    )
    text = haystack(10_000_000, *needles)
    assert len(text) > 9_900_000
    return text


def test_it_says_that_it_is_not_a_language_model() -> None:
    """`offline` implements the protocol, and its notice says that it is not a language model."""
    assert isinstance(OfflineLM(), LM)
    assert (OfflineLM().name, OfflineLM().context_window) == ("offline", None)
    assert "not a language model" in model.NOTICE
    assert "language model" in (OfflineLM.__doc__ or "")


def test_a_needle_in_ten_megabytes_is_found_and_cited(ten_megabytes: str) -> None:
    """The sentence is found among ten million characters and cited, with few sub-calls."""
    run = ask(ASKED, ten_megabytes)
    assert run.value == LISBON
    assert run.evidence == [
        SpanRef("context_0", at := ten_megabytes.index(LISBON), at + len(LISBON))
    ]
    assert len(run.replies) == 3
    assert len(run.prompts) <= 24


@pytest.mark.parametrize(
    ("question", "needle"),
    [
        ("Which code opens the vault in Lisbon?", LISBON),
        ("what are the access codes of lisbon's vaults", LISBON),
        (
            "What is the combination of the Oslo depot?",
            "The Oslo depot was built in 1901. Its combination is 77421.",
        ),
    ],
)
def test_other_forms_of_the_words_find_it_too(
    ten_megabytes: str, question: str, needle: str
) -> None:
    """Inflected words match by their stems, and a name in the previous sentence is part of the
    answer.
    """
    run = ask(question, ten_megabytes)
    assert run.quotes == [needle]


def test_two_questions_at_once_have_two_quotes(ten_megabytes: str) -> None:
    """A question about two names is answered with a quote for each."""
    run = ask("What are the access codes of the Lisbon and Porto vaults?", ten_megabytes)
    assert sorted(run.quotes) == [LISBON, "The access code of the Porto vault is 11975."]


@pytest.mark.parametrize(
    "question",
    ["What is the access code of the Madrid vault?", "What is the boiling point of mercury?"],
)
def test_a_question_without_an_answer(ten_megabytes: str, question: str) -> None:
    """A question without an answer has no answer and no evidence, and the missing words are
    listed.
    """
    run = ask(question, ten_megabytes)
    assert run.value.startswith(NONE)
    assert "not in the document at all: " in run.value
    assert run.evidence == []


def test_unmatched_words_are_named() -> None:
    """An answer that misses an important word of the question says so."""
    run = ask("What is the password of the Lisbon vault?", haystack(300_000, LISBON))
    assert run.value == f"{LISBON}\n(nothing found with: password)"


def test_a_list_question_returns_all() -> None:
    """A question about all of a kind is answered with every matching sentence, wherever it is."""
    needles = [
        f"Treaty number {number} was signed at Castle {name}."
        for number, name in enumerate(("Ahorn", "Birke", "Celtis", "Dorn"), 7)
    ]
    run = ask("List all treaties that were signed at a castle.", haystack(1_000_000, *needles))
    assert sorted(run.quotes) == sorted(needles)
    assert run.evidence == sorted(run.evidence, key=lambda span: span.start)


@pytest.mark.parametrize("at", [50_000 - 20, 100_000 - 5, 50_000, 49_999])
@pytest.mark.parametrize("blank", [" ", "\n", ". "])
def test_a_needle_on_a_border_is_found(at: int, blank: str) -> None:
    """Chunks end at sentences or lines, and overlap if a text has neither: no needle is split."""
    text = blank.join(random.Random(3).choices(WORDS, k=250_000))
    at = text.index(blank, at)
    run = ask(ASKED, f"{text[:at]}{blank}{LISBON}{text[at:]}")
    assert any(LISBON in quote for quote in run.quotes)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("question", "needle"),
    [
        ("Qual é o código do cofre de São Paulo?", "O código do cofre de São Paulo é 48213."),
        ("Qual e o codigo do cofre de Sao Paulo?", "O código do cofre de São Paulo é 48213."),
        ("Wie heißt der STRASSENKREUZER?", "Der Straßenkreuzer heißt Ödön 😀."),
        ("里斯本金库的密码是什么？", "里斯本金库的密码是48213。"),  # noqa: RUF001 - the script's own mark
        ("Какой код у хранилища в Одессе?", "Код от хранилища в Одессе: 48213."),  # noqa: RUF001 - Cyrillic is meant
    ],
)
def test_other_languages_work(question: str, needle: str, form: Any) -> None:
    """Accents, case and Unicode forms are ignored, scripts without spaces work, and spans are
    exact.
    """
    needle = unicodedata.normalize(form, needle)
    text = haystack(200_000, f"é 😀 {needle}")
    run = ask(question, text)
    assert any(needle in quote for quote in run.quotes)


def test_many_small_sources_share_a_prompt() -> None:
    """A list of short texts is packed into few prompts; the span names the source of the quote."""
    texts = [f"Letter {number} speaks of the weather." for number in range(20_000)]
    texts[12_345] += " " + LISBON
    run = ask(ASKED, texts)
    assert run.value == LISBON
    assert [span.source for span in run.evidence] == ["context_12345"]
    assert len(run.prompts) <= 24


@pytest.mark.parametrize("context", ["", [], ["", ""]])
def test_an_empty_context_has_no_answer(context: str | list[str]) -> None:
    """An empty context is not an error."""
    assert ask(ASKED, context).value.startswith(NONE)


def test_a_question_without_words_is_answered_with_a_sample() -> None:
    """A question that cannot be searched is answered with a sample, and the answer says so."""
    run = ask("What is it about?", haystack(1_000_000))
    assert "these are opening sentences" in run.value
    assert run.quotes


def test_failed_sub_calls_are_counted_in_the_answer() -> None:
    """Parts that could not be read are counted in the answer, with or without other replies."""
    text = haystack(60_000, LISBON)
    run = ask(
        ASKED,
        text,
        sub=lambda prompt: (
            f"- {LISBON}" if LISBON in prompt else LLMError("timeout", "no answer in 60 s")
        ),
    )
    assert run.value.startswith(LISBON)
    assert re.search(
        r"\(\d of \d parts could not be read: Error: timeout: no answer in 60 s\)", run.value
    )
    run = ask(ASKED, text, sub=lambda prompt: LLMError("budget", "calls are used up"))
    assert run.value.startswith(NONE)
    assert "Error: budget" in run.value


def test_invented_quotes_are_not_shown() -> None:
    """A quote that is not exactly in the document is not an answer."""
    run = ask(
        ASKED, haystack(60_000), sub=lambda prompt: "- The access code of the Lisbon vault is 1."
    )
    assert run.value.startswith(NONE)
    assert "what was quoted is not in the document" in run.value
    assert run.evidence == []


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_an_error_in_the_history_is_reported(turn: int) -> None:
    """After a failed step the root's final answer names the error."""
    run = ask(ASKED, LISBON, breaks=turn)
    assert f"its step {turn} failed: NameError: name 'llm_batch' is not defined" in run.value
    assert len(run.replies) == turn + 1


def test_the_closing_request_is_followed() -> None:
    """After the closing request, the root answers with what has been read, or says that nothing
    has.
    """
    assert ask(ASKED, LISBON, close=3).value == LISBON
    early = ask(ASKED, LISBON, close=2)
    assert "stopped before its three steps" in early.value
    assert early.prompts == []
    assert "stopped before its three steps" in ask(ASKED, LISBON, close=1).value


def test_a_session_s_next_question_starts_again() -> None:
    """Programs of an earlier question do not count as steps of this one."""
    before = ask(ASKED, LISBON)
    history = [
        Message("user", ASKED),
        Message("assistant", before.replies[-1]),
        Message("user", "Now: Who opened the vault?"),
    ]
    request = Request(messages=tuple(history), role="root", query="Who opened the vault?")
    assert "# Step 1 of 3" in asyncio.run(OfflineLM().complete(request)).text


def test_replies_are_the_same_every_time() -> None:
    """The same question over the same text results in the same programs, prompts and answer."""
    text = haystack(500_000, LISBON)
    assert ask("List all codes of vaults.", text) == ask("List all codes of vaults.", text)


@pytest.mark.parametrize(
    ("prompt", "query", "reply"),
    [
        (
            f"{model._ASK}\n\nQuestion: Say:\n\nWho wrote?\n\nPassage:\nAnna wrote. {LISBON}",
            ASKED,
            "- Anna wrote.",
        ),
        (f"{ASKED}\n\n{haystack(2_000, LISBON)}", "", f"- {LISBON}"),
        (f"{haystack(2_000, LISBON)}\n\n{ASKED}", "", f"- {LISBON}"),
        (haystack(2_000, LISBON).replace("\n\n", " "), ASKED, f"- {LISBON}"),
        (f"Who wrote?\n\n{haystack(2_000, LISBON)}", "", NOTHING),
        ("", "", NOTHING),
        ("   \n\n \n", ASKED, NOTHING),
    ],
)
def test_as_sub_model_it_quotes_or_says_that_it_found_nothing(
    prompt: str, query: str, reply: str
) -> None:
    """Prompts of this library's root and others are split into question and text; the run's own
    question is the fallback.
    """
    completion = asyncio.run(
        OfflineLM().complete(Request(messages=(Message("user", prompt),), query=query))
    )
    assert completion.text == reply
    assert (completion.model, completion.finish_reason) == ("offline", "stop")
    assert completion.usage is not None
    assert completion.usage.input_tokens == -(-len(prompt) // 4)


def test_the_first_program_folds_as_the_sub_model_does() -> None:
    """The root's search and the sub-model match the same words."""
    reply = asyncio.run(
        OfflineLM().complete(Request(messages=(Message("user", ASKED),), role="root", query=ASKED))
    ).text
    names: dict[str, Any] = {"context": ""}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(reply.split("```repl\n")[1].removesuffix("\n```"), names)
    for text in (
        "Ärger in İstanbul, Straße",
        "E\u0301tude 한국어 が",
        "ASCII Only",
        "\uff14\uff18",
    ):
        assert names["fold"](text) == fold_accents(text)
