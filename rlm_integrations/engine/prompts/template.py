"""The words with which a run begins, and ends if it must: templates that users may replace."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from string import Template
from types import MappingProxyType
from typing import Final

from rlm_integrations.errors import InputError, check_text

_SYSTEM: Final = """\
You answer a question about a document that is too long to be read at once. It is the variable \
`context` of a Python REPL. You do not
see it: you write code that looks into it, and you see what the code prints.

$form

$rules

In the REPL:
- `context`: the text, or a list of texts; `context_0`, `context_1`, … are its sources, \
`context_metadata` what is known of each.
- `llm_query(prompt, model=None) -> str`: ask a language model, which sees nothing but the prompt.
- `llm_batch(prompts, max_concurrent=None, model=None) -> list[str]`: ask many, $width at once; \
the order is kept, a failed one begins
  with "Error:".
- `parallel_query("… {chunk} …", chunks) -> list[str]`: the same prompt over many chunks, likewise.
- `recursive_lm(query, context_subset) -> str`: have a question over a part of the context \
answered, $child;
  `recursive_batch([{"query": …, "context": …}, …]) -> list[str]`: several at once.
- `cite("exact quote", source=None) -> SpanRef | None`: where the document says so word for word, \
None if it does not.
- `SHOW_VARS()`: your variables; `help(name)`: what a function takes.
- `FINAL(value, evidence=[…])`: finish; evidence holds what `cite` gave. `FINAL_VAR("name")`: \
finish with a variable.
  If value is an answer in words, number its statements: `[1]` after what the first piece of \
evidence supports, `[2]` after the second.
$models
How to work:
1. Look at the beginning and at the structure; search with `re` where the words are known.
2. Where meaning matters, cut the text at sensible borders into chunks of $chunks and ask about \
all of
   them in one batch. Do not loop over llm_query: every call would wait for the one before. Not

       for chunk in chunks:
           notes.append(llm_query(f"Quote what is said of the treaty.\\n\\n{chunk}"))

   but

```repl
chunks = [context[at : at + 50_000] for at in range(0, len(context), 50_000)]
replies = llm_batch([f"Quote each sentence about the treaty, or say NONE.\\n\\n{chunk}" for chunk \
in chunks])
notes = [reply for reply in replies if not reply.startswith(("NONE", "Error:"))]
print(len(notes), "of", len(chunks), notes[:2])
```

3. Put together what came back, in code or by one more llm_query, check it against the text, and \
finish in a block:

```repl
answer = llm_query("Answer from these notes: when was the treaty signed?\\n\\n" + "\\n".join(notes))
FINAL(answer, evidence=[span for note in notes if (span := cite(note))])
```

Finish once you know. Where the document does not say, say so.
$tools$store$schema$instructions"""
_QUESTION: Final = """\
Question: $question

$context
$allowance"""
_STORE: Final = """
If it helps, there is a store for findings, which everything in this run shares and can search; \
for simple questions variables will do.
- `store.create(type, description, content, backrefs=None, parents=None, tags=None) -> id`: keep a \
finding; backrefs are SpanRefs.
- `store.search('type=claim tag=x desc~"word"', limit=50)`, `store.search_text("any words")`, \
`store.summary()`, `store.get(id)`.
- `store.llm_map([{"name": …, "prompt": …}, …]) -> batch id`: ask in parallel and keep the \
replies; `store.children(batch id)` are the
  objects that hold them, in the order of the tasks: `.description` is the name, `.content` the \
reply.
- `store.llm_reduce(ids, prompt) -> id`: fold objects into one.
"""
_WORKERS: Final = """\
- `rlm_worker(prompt, store_cards=None)`, `rlm_worker_batched(tasks, max_parallel=None)`: have \
workers, each with a REPL and the whole
  context, explore; they return commits, which `apply_commit(commit)` merges into the store.
"""
_CLOSING: Final = (
    "This is the last turn: $reason. No model can be asked any more. Give the best answer "
    "that what you found allows, $finish. Say what it leaves open."
)

# Functions, and keys of the dict `answer`, with which code finishes
_FINISHES: Final = "FINAL, FINAL_VAR, SUBMIT, final_answer or answer["
_FINISH: Final = re.compile(r"\b(?:FINAL|FINAL_VAR|SUBMIT|final_answer)\b|\banswer\[")
_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "system": "form rules width chunks child models tools store schema instructions",
        "question": "question context allowance",
        "store": "",
        "workers": "",
        "closing": "reason finish",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The templates of the messages with which a run begins and ends, such as for a model that was
    trained on other words. What code printed, and remarks on replies, are not part of it.

    A template has fields such as `$question`; `$$` is a dollar sign. The defaults are in the class:
    `Prompt(system=Prompt().system.replace(…))`.

    Attributes:
        system: The system prompt. It must mention `context`, and one of FINAL, FINAL_VAR, SUBMIT,
            final_answer and `answer[`. Fields: `$form`, how a reply is written; `$rules`, what code
            may use and how much output is shown; `$width`, how many calls run at once; `$chunks`,
            the size of chunks; `$child`, who answers `recursive_lm`; and these, which are empty
            without the option of which they speak: `$models`, the names of several sub-models;
            `$tools`; `$store`; `$schema`, of the answer; `$instructions`.
        question: The first message of the user. It must have `$question`; further fields:
            `$context`, which describes the document; `$allowance`, the turns and the budget.
        store: What `$store` is if a store can help. No fields.
        workers: What follows it if workers have REPLs. No fields.
        closing: The request for the best answer when a run must end. It must have `$finish`, how to
            finish, or mention one of the functions above; a further field: `$reason`.
    """

    system: str = _SYSTEM
    question: str = _QUESTION
    store: str = _STORE
    workers: str = _WORKERS
    closing: str = _CLOSING

    def __post_init__(self) -> None:
        for each in fields(self):
            _check_template(each.name, getattr(self, each.name), _FIELDS[each.name].split())
        if not re.search(r"\bcontext\b", self.system):
            raise InputError(
                "Prompt(system=…) must mention `context`, the variable of the document"
            )
        if not _FINISH.search(self.system):
            raise InputError(f"Prompt(system=…) must mention how code finishes: one of {_FINISHES}")
        if "question" not in Template(self.question).get_identifiers():
            raise InputError("Prompt(question=…) must have the field $question")
        if "finish" not in Template(self.closing).get_identifiers() and not _FINISH.search(
            self.closing
        ):
            raise InputError(
                f"Prompt(closing=…) must have the field $finish, or one of {_FINISHES}"
            )

    def check_options(self, needed: Mapping[str, str]) -> None:
        """Check that the system prompt has the fields that a run's options need.

        Args:
            needed: Fields, and the options of which they speak.

        Raises:
            InputError: One is missing.
        """
        has = Template(self.system).get_identifiers()
        for field, option in needed.items():
            if field not in has:
                raise InputError(
                    f"Prompt(system=…) must have the field ${field}, because of {option}"
                )

    @property
    def question_start(self) -> str:
        """The words with which every first message begins; "" if they are not known."""
        start, _, _ = self.question.partition("$")
        return start


def fill_template(template: str, values: Mapping[str, object] = MappingProxyType({})) -> str:
    """A template with its fields filled."""
    return Template(template).substitute(values)


def _check_template(name: str, text: object, known: list[str]) -> None:
    template = Template(check_text(f"Prompt({name}=…)", text))
    if not template.is_valid():
        raise InputError(
            f"Prompt({name}=…) has a $ that begins no field: write $$ for a dollar sign"
        )
    if unknown := [each for each in template.get_identifiers() if each not in known]:
        there = ", ".join(f"${each}" for each in known) or "none"
        raise InputError(
            f"Prompt({name}=…) has the unknown field ${unknown[0]}; fields are: {there}. "
            "Write $$ for a dollar sign"
        )


DEFAULT_PROMPT: Final = Prompt()
