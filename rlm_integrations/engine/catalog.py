"""The functions of the host as model code sees them: their names, their parameters, and a line or
two for `help`.
"""

import inspect

from rlm_integrations.records import HostFunction
from rlm_integrations.store import WorkerStoreProxy
from rlm_integrations.store.worker import REPL_METHODS

FUNCTIONS = (
    HostFunction(
        "llm_query",
        "(prompt, model=None)",
        "Ask a language model; it sees nothing but the prompt. A failed call gives an LLMError, a str that begins with 'Error:'.",
    ),
    HostFunction(
        "llm_batch",
        "(prompts, max_concurrent=None, model=None)",
        "Ask many prompts, as many at once as the run allows, or fewer. The replies are in the order of the prompts.",
        ("llm_query_batched",),
    ),
    HostFunction(
        "parallel_query",
        "(template, chunks, max_concurrent=None, model=None)",
        "Ask the same about many chunks, as llm_batch does: in each prompt a chunk takes the place of {chunk}.\n"
        "The names prompt_template and context_chunks work too.",
    ),
    HostFunction(
        "recursive_lm",
        "(query, context_subset)",
        "Have a question answered over a part of the context, a string or a list of strings.",
    ),
    HostFunction(
        "recursive_batch",
        "(tasks)",
        "Have several questions answered at once; a task is {'query': …, 'context': …}. The answers are in the order of the tasks.",
    ),
    HostFunction(
        "rlm_query",
        "(prompt, context=None, model=None)",
        "Have a prompt answered that holds its own context, or a question over the context that is passed.",
    ),
    HostFunction(
        "rlm_query_batched",
        "(prompts, model=None)",
        "Have several prompts answered at once, each as rlm_query does. The answers are in the order of the prompts.",
    ),
    HostFunction(
        "cite",
        "(quote, source=None)",
        "The SpanRef of these exact words in the document, or None where it does not hold them; source is a name such as 'context_0'.",
    ),
)

STORE_FUNCTIONS = (
    HostFunction(
        "rlm_worker",
        "(prompt, store_cards=None)",
        "Have a worker with a REPL of its own explore the context; its answer is a commit for apply_commit.",
    ),
    HostFunction(
        "rlm_worker_batched",
        "(tasks, max_parallel=None)",
        "Have several workers explore at once; a task is a prompt or {'prompt': …, 'store_cards': …}.",
    ),
    HostFunction(
        "apply_commit",
        "(commit, batch_prefix='')",
        "Merge a worker's commit into the store; to merge it again changes nothing. Gives what was created, and the error if any.",
    ),
    HostFunction(
        "store.llm_map",
        "(tasks)",
        "Ask the prompt of every task {'name': …, 'prompt': …} at once; gives the id of the batch.\n"
        "store.children(id) are the objects with the replies, in the order of the tasks.",
    ),
    HostFunction(
        "store.llm_reduce",
        "(ids_or_query, prompt)",
        "Fold the objects of these ids, or of this query or batch id, into one by the prompt; gives the id of the new object.",
    ),
)


def store_method(name: str) -> HostFunction:
    """A method of the store, with the parameters that it has; their types are not shown."""
    method = getattr(WorkerStoreProxy, name)
    return HostFunction(
        f"store.{name}", str(_plain(inspect.signature(method))), inspect.getdoc(method) or ""
    )


def store_signature(name: str) -> inspect.Signature:
    """What a call of a store method must fit."""
    return _plain(inspect.signature(getattr(WorkerStoreProxy, name)))


def _plain(signature: inspect.Signature) -> inspect.Signature:
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    return inspect.Signature(parameters)


STORE_METHODS = tuple(map(store_method, sorted(REPL_METHODS)))
