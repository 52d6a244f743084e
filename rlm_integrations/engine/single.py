"""The short way: a document that one call can read whole is answered by one call, without a REPL."""

import json
import re
from collections.abc import Sequence

from rlm_integrations import _runtime
from rlm_integrations.engine import prompts
from rlm_integrations.engine.answer import InvalidAnswerError
from rlm_integrations.engine.citations import verified
from rlm_integrations.engine.loop import Run
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import ModelError
from rlm_integrations.events import TurnFinished, TurnStarted
from rlm_integrations.records import Message, Request
from rlm_integrations.result import Iteration

_SYSTEM = (
    "Answer the question from the document alone. After the answer, quote word for word what supports it, each quote in a line of its own "
    'that begins with "> ". Where the document does not say, say so.'
)
_FENCED = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)


async def answer_at_once(tree: Tree, run: Run, history: Sequence[Message]) -> bool:
    """Ask the root model once, with the whole document in the prompt; quotes become citations where the document holds them.

    Whether that answered: where an answer of a type was asked for and the reply does not fit, the loop may do better.

    Raises:
        ModelError: It failed.
    """
    outcome, root = run.outcome, tree.settings.root
    outcome.messages += [*history, Message("user", f"Question: {run.query}")] if history else await _opening(tree, run)
    request = Request(tuple(outcome.messages), role="root", query=run.query, path="r.1")
    tree.emit(TurnStarted(id=run.id, iteration=1))
    record = await tree.ask(root, request, parent=run.id)
    if record.error is not None:
        if tree.purse.spent_out is None:
            raise ModelError(f"{root.name}: {record.error.message}", type=record.error.type)
        outcome.stop_reason = tree.purse.spent_out
        return True
    outcome.messages.append(Message("assistant", record.reply))
    lines = record.reply.splitlines()
    quotes = [line[2:].strip() for line in lines if line.startswith("> ")]
    said = "\n".join(line for line in lines if not line.startswith("> ")).strip()
    note = ""
    try:
        fenced = _FENCED.fullmatch(said) if run.typed.schema is not None else None
        outcome.answer = await _runtime.offload(run.typed.read, fenced[1] if fenced else said or record.reply)
        outcome.stop_reason = "final"
        outcome.citations, outcome.dropped_citations = await _runtime.offload(verified, quotes, tree.corpus, tree.corpus)
    except InvalidAnswerError as error:
        note = prompts.invalid(str(error))
    turn = Iteration(
        iteration=1, reply=record.reply, note=note, start=tree.since(record.start), end=tree.since(record.end), usage=record.usage
    )
    outcome.turns.append(turn)
    tree.emit(TurnFinished(id=run.id, turn=turn))
    return not note


async def _opening(tree: Tree, run: Run) -> list[Message]:
    system = _SYSTEM
    if run.typed.schema is not None:
        system += f" The answer is JSON and fits this schema: {json.dumps(run.typed.schema, ensure_ascii=False)}"
    texts = [await _runtime.offload(tree.corpus.text, source.name) for source in tree.corpus.sources]
    return [Message("system", system), Message("user", "\n\n".join([f"Question: {run.query}", *texts]))]
