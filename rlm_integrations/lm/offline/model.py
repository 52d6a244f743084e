"""The `offline` model: no language model, but a stand-in that drives the real loop, sandbox, store
and report where no key is set.

As root it writes the same three programs for every question, as a good root would: look, ask
sub-models about the parts that matter, all at once, and finish with quotes that are cited. As
sub-model it quotes the sentences that hold most of the question's words. It neither understands nor
reasons, and where it finds nothing, or something failed, its answer says so.
"""

import asyncio
import re
from collections.abc import Iterable
from string import Template

from rlm_integrations._concurrency.runtime import threads
from rlm_integrations.lm.offline.sentences import extract, read_question
from rlm_integrations.lm.query import Queryable
from rlm_integrations.records import Completion, Message, Request, Usage

NOTICE = (
    "offline is no language model: it finds sentences that hold the question's words, and quotes them. "
    "It neither understands nor reasons. Set OPENAI_API_KEY, or name a model, for real answers."
)
NOTHING = "NOTHING FOUND"
# In the closing request of the engine, by which it is told from what a program printed
CLOSING = "This is the last turn"


_ASK = f"""\
Quote the sentences of the passage that answer the question, word for word, one per line, each after "- ".
If there are none, write only: {NOTHING}"""

_LOOK = """\
# Step 1 of 3: look at the context, cut it at sensible borders, and count the question's words in it.
import math, re, unicodedata

question = $question
words = $words  # by what their forms share
names = set($names)
sources = [context] if isinstance(context, str) else list(context)
total = sum(map(len, sources))
size = min(max(total // 20, 10_000), 50_000)

def fold(text):  # lower case, without accents
    if text.isascii():
        return text.lower()
    bare = re.sub("[\\u0300-\\u036f]+", "", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFC", bare)

def cut(text):  # parts end with a paragraph, a sentence or a line; those that cannot, overlap
    start = 0
    while start < len(text):
        end, overlap = min(start + size, len(text)), 0
        if end < len(text):
            ends = (text.rfind(mark, start + size // 2, end) + len(mark) for mark in ("\\n\\n", ". ", ".\\n", "。", "\\n"))
            end, overlap = next(((each, 0) for each in ends if each > start + size // 2), (end, 500))
        yield start, end
        start = end - overlap

chunks, filled = [[]], 0  # a chunk is a list of parts: short sources share one
for number, text in enumerate(sources):
    for start, end in cut(text):
        if filled and filled + end - start > size:
            chunks.append([])
            filled = 0
        chunks[-1].append((number, start, end))
        filled += end - start

def text_of(chunk):
    return "\\n\\n".join(sources[number][start:end] for number, start, end in chunk)

counts, together = dict.fromkeys(words, 0), []  # together: which words stand within 2,000 characters, per chunk
for chunk in chunks:
    text = fold(text_of(chunk))
    for stem in words:
        counts[stem] += text.count(stem)
    windows = (text[at : at + 2000] for at in range(0, max(len(text), 1), 1000))
    together.append({frozenset(stem for stem in words if stem in window) for window in windows})

weights = {stem: math.log(1 + max(total / 100, 50) / (1 + count)) for stem, count in counts.items()}  # rare words tell more

def weight(held):
    return sum(weights[stem] for stem in words if stem in held)

print(type(context).__name__, "of", len(sources), "source(s),", total, "characters,", len(chunks), "chunk(s)")
print("begins:", repr(sources[0][:200]) if sources else "nothing")
print("counts:", {words[stem]: count for stem, count in counts.items()})
print("Step 1 of 3 is done.")"""

_MAP = """\
# Step 2 of 3: ask about the chunks in which most of the question's words stand close together, all at once.
strength = [max(map(weight, sets)) for sets in together]
ranked = sorted(range(len(chunks)), key=lambda at: -strength[at])
worth = [at for at in ranked if len(chunks) <= 8 or strength[at] >= 0.6 * strength[ranked[0]]]
asked = sorted(worth[:$asked] if words else worth[:: -(-len(worth) // $asked)])  # without words to search for, a sample
ask = $ask
replies = llm_batch([f"{ask}\\n\\nQuestion: {question}\\n\\nPassage:\\n{text_of(chunks[at])}" for at in asked])
failed = [reply for reply in replies if reply.startswith("Error:")]
print(len(asked), "chunk(s) read,", len(failed), "failed:", *failed[:1])
print("Step 2 of 3 is done.")"""

_REDUCE = """\
# Step 3 of 3: rank the quotes, keep those that the document really holds, and finish.
def held_by(quote):
    text = fold(quote)
    return {stem for stem in words if re.search(rf"(?<![a-z0-9]){re.escape(stem)}", text)}

quotes = list(dict.fromkeys(line[2:].strip() for reply in replies for line in reply.splitlines() if line.startswith("- ")))
shares = {quote: weight(held_by(quote)) / (weight(words) or 1) for quote in quotes}
best = max(shares.values(), default=0)
kept, covered = [], set()
for quote in sorted(quotes, key=lambda quote: -shares[quote]):
    new = held_by(quote) - covered  # a second quote may answer the other half of a question
    if not words or shares[quote] >= $close * best or (shares[quote] >= 0.6 * best and new & names):
        kept.append(quote)
        covered |= held_by(quote)

evidence = {quote: span for quote in sorted(kept[:$quotes], key=quotes.index) if (span := cite(quote))}
missing = [words[stem] for stem in words if stem not in covered]
share = weight(covered) / (weight(words) or 1)
notes = []
if kept and not evidence:
    notes.append("what was quoted is not in the document")
if failed:
    notes.append(f"{len(failed)} of {len(replies)} parts could not be read: {failed[0]}")
if len(asked) < len(worth):
    notes.append(f"read closely: {len(asked)} of {len(worth)} parts that may matter")
if evidence and not words:
    notes.append("the question has no word that can be searched for: these are opening sentences")
if not evidence or (words and (share < 0.5 or (names and not names & covered))):
    absent = [words[stem] for stem, count in counts.items() if not count]
    if absent:
        notes.append("not in the document at all: " + ", ".join(absent))
    evidence = {}
elif missing and (share < 0.75 or names - covered):
    notes.append("nothing found with: " + ", ".join(missing))
if "store" in globals():
    for quote, span in evidence.items():
        store.create("quote", quote[:100], quote, [span])
lines = list(evidence) or ["Nothing in the document answers this, as far as a search for its words can tell."]
FINAL("\\n".join([*lines, *(f"({note})" for note in notes)]), evidence=list(evidence.values()))"""

_SAID = {
    1: "I look at the context first.",
    2: "Now I ask about the parts that may hold the answer, in one batch.",
    3: "I rank the quotes, check them against the document, and finish.",
}
_STEP = re.compile(r"^# Step (\d) of 3:", re.MULTILINE)
_ERROR = re.compile(r"^\w*(?:Error|Exception|Interrupt|Exit)\w*\b.*", re.MULTILINE)


class OfflineLM(Queryable):
    """A stand-in for a model, without a language model behind it: it finds sentences by their
    words, and says that it is one.

    The same request gets the same answer. Usage is an estimate: a token for every four characters.
    """

    name = "offline"
    context_window: int | None = None

    async def complete(self, request: Request) -> Completion:
        """The next program as root; the quotes that answer best as sub-model."""
        if request.role == "root":
            text = _root(request)
        else:
            # One thread: several would take turns at the interpreter's lock, and each keep the
            # event loop waiting for its own.
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
    """The reply that the history asks for: the next step, or an honest end."""
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
    # In a session the programs of the question before are still to be seen.
    if step == 0 or query in seen:
        return _program(1, query)
    errors = _ERROR.findall(seen)
    return _give_up(
        f"its step {step} failed: {errors[-1][:300]}"
        if errors
        else f"its step {step} did not end as it should"
    )


def _program(step: int, query: str) -> str:
    question = read_question(query)
    values = {
        "question": repr(query),
        "words": repr(question.words),
        "names": repr(sorted(question.names)),
        "ask": repr(_ASK),
        "asked": 200 if question.wants_all else 24,
        "quotes": 100 if question.wants_all else 5,
        "close": 0.75 if question.wants_all else 0.9,
    }
    return _fenced(_SAID[step], Template({1: _LOOK, 2: _MAP, 3: _REDUCE}[step]).substitute(values))


def _give_up(reason: str) -> str:
    answer = f"The offline stand-in found no answer: {reason}."
    return _fenced("I cannot go on, and say so.", f"FINAL({answer!r})")


def _fenced(said: str, code: str) -> str:
    return f"{said}\n\n```repl\n{code}\n```"


def _sub(prompt: str, query: str) -> str:
    """The quotes that answer a sub-model's prompt: one of our root's, or anybody's, where a
    question stands beside a text.
    """
    question, passage = _parts(prompt, query)
    quotes = extract(read_question(question), passage)
    return "\n".join(f"- {quote}" for quote in quotes) or NOTHING


def _parts(prompt: str, query: str) -> tuple[str, str]:
    """The question of a prompt and the text that it is about."""
    if prompt.startswith(_ASK):
        ours, _, passage = prompt.removeprefix(_ASK).partition("\n\nPassage:\n")
        return ours.removeprefix("\n\nQuestion: "), passage
    first, _, rest = prompt.strip().partition("\n\n")
    before, _, last = prompt.strip().rpartition("\n\n")
    if _is_question(first) or (not query and not _is_question(last)):
        return first, rest
    return (last, before) if _is_question(last) else (query, prompt)


def _is_question(paragraph: str) -> bool:
    return len(paragraph) <= 1_000 and (
        paragraph.startswith("Question:") or paragraph.rstrip().endswith(("?", ":"))
    )
