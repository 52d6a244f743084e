"""The short way: a document that one call can read whole is answered by one call, without a REPL."""

from rlm_integrations import _runtime
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


async def answer_at_once(tree: Tree, run: Run) -> None:
    """Ask the root model once, with the whole document in the prompt; quotes become citations where the document holds them.

    Raises:
        ModelError: It failed.
    """
    outcome, root = run.outcome, tree.settings.root
    texts = [await _runtime.offload(tree.corpus.text, source.name) for source in tree.corpus.sources]
    outcome.messages += [Message("system", _SYSTEM), Message("user", "\n\n".join([f"Question: {run.query}", *texts]))]
    request = Request(tuple(outcome.messages), role="root", query=run.query, path="r.1")
    tree.emit(TurnStarted(id=run.id, iteration=1))
    record = await tree.ask(root, request, parent=run.id)
    if tree.purse.spent_out is not None:
        outcome.stop_reason = tree.purse.spent_out
        return
    if record.error is not None:
        raise ModelError(f"{root.name}: {record.error.message}", type=record.error.type)
    outcome.messages.append(Message("assistant", record.reply))
    lines = record.reply.splitlines()
    quotes = [line[2:].strip() for line in lines if line.startswith("> ")]
    said = "\n".join(line for line in lines if not line.startswith("> ")).strip()
    outcome.stop_reason = "final"
    try:
        outcome.answer = await _runtime.offload(run.typed.read, said or record.reply)
    except InvalidAnswerError as error:
        outcome.answer, outcome.stop_reason, outcome.error = said, "max_iterations", str(error)
    outcome.citations, outcome.dropped_citations = await _runtime.offload(verified, quotes, tree.corpus, tree.corpus)
    turn = Iteration(iteration=1, reply=record.reply, start=tree.since(record.start), end=tree.since(record.end), usage=record.usage)
    outcome.turns.append(turn)
    tree.emit(TurnFinished(id=run.id, turn=turn))
