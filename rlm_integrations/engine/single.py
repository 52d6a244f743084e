"""Answers a question over a short document with one model call, without a REPL."""

import re

from rlm_integrations._concurrency import runtime
from rlm_integrations.corpus import Corpus
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import InvalidAnswerError
from rlm_integrations.engine.budget import BudgetSpentError
from rlm_integrations.engine.call_id import SINGLE, CallId
from rlm_integrations.engine.loop import Run
from rlm_integrations.engine.repl import LazySession
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ModelError
from rlm_integrations.events import TurnFinished, TurnStarted
from rlm_integrations.prompt_pieces import PromptPieces, made_of
from rlm_integrations.records import Message, Request, SpanRef
from rlm_integrations.trajectory import Iteration, call_fields

_FENCED = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)


async def answer_at_once(tree: Tree, run: Run, repl: LazySession) -> bool:
    """Call the root model once, with the whole document in the prompt. Quotes that are in the
    document become citations.

    Returns:
        Whether there is an answer. If the reply does not match the `output_type`, the loop may
        find one.

    Raises:
        ModelError: The call failed.
    """
    outcome, root = run.outcome, tree.settings.root
    pieces = None
    if repl.history:
        outcome.messages += [*repl.history, Message("user", f"Question: {run.query}")]
        pieces = await run.reading.prompt(outcome.messages)
    else:
        prompt, pieces = await runtime.offload(_prompt, tree.corpus, f"Question: {run.query}")
        outcome.messages += [
            Message("system", prompts.single_call(run.typed.schema, tree.settings.instructions)),
            Message("user", prompt),
        ]
        repl.recorded[prompt] = str(pieces)
    call = CallId("r", 0, SINGLE)
    request = Request(tuple(outcome.messages), role="root", query=run.query, path=call.path)
    tree.emit(TurnStarted(id=run.id, iteration=1))
    try:
        record = await tree.models.ask_root(call, request, run.meter, parent=run.id)
    except BudgetSpentError as spent:
        outcome.stop_reason, outcome.error = spent.reason, str(spent)
        return True
    if record.error is not None:
        raise ModelError(f"{root.name}: {record.error.message}", type=record.error.type)
    outcome.messages.append(Message("assistant", record.reply))
    lines = record.reply.splitlines()
    quotes = [line[2:].strip() for line in lines if line.startswith("> ")]
    words = "\n".join(line for line in lines if not line.startswith("> ")).strip()
    note = ""
    try:
        fenced = _FENCED.fullmatch(words) if run.typed.schema is not None else None
        outcome.answer = await runtime.offload(
            run.typed.read, fenced[1] if fenced else words or record.reply
        )
        outcome.stop_reason = "final"
        outcome.cite(await tree.verify_evidence(quotes, tree.corpus))
    except InvalidAnswerError as error:
        note = prompts.invalid(str(error))
    turn = Iteration(
        iteration=1,
        reply=record.reply,
        prompt=pieces,
        note=note,
        start=tree.clock.since(record.start),
        call_end=tree.clock.since(record.end),
        end=tree.clock.now(),
        **call_fields(record),
    )
    outcome.turns.append(turn)
    tree.emit(TurnFinished(id=run.id, turn=turn))
    return not note


def _prompt(corpus: Corpus, question: str) -> tuple[str, PromptPieces]:
    """The question and all sources, as a string and as its recorded form. Blocks; call it in a
    thread.
    """
    pieces: list[str | SpanRef] = [question]
    for source in corpus.sources:
        named = f"{source.name}:\n" if corpus.is_named else ""
        pieces += [
            f"\n\n{named}",
            *([SpanRef(source.name, 0, source.length)] if source.length else []),
        ]
    return made_of(pieces, corpus)
