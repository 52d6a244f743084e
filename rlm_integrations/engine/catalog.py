"""The host functions as model code sees them: names, parameters, and a short text for `help`."""

import inspect
from functools import cache

from rlm_integrations.records import HostFunction
from rlm_integrations.store import WorkerStoreProxy
from rlm_integrations.store.worker import REPL_METHODS

FUNCTIONS = (
    HostFunction(
        "llm_query",
        "(prompt, model=None)",
        "Call a language model, which sees only the prompt. "
        "A failed call returns an LLMError, a str that begins with 'Error:'.",
    ),
    HostFunction(
        "llm_batch",
        "(prompts, max_concurrent=None, model=None)",
        "Call a language model with many prompts, concurrently up to the limit of the run or "
        "max_concurrent. The replies are in the order of the prompts.",
        ("llm_query_batched",),
    ),
    HostFunction(
        "parallel_query",
        "(template, chunks, max_concurrent=None, model=None)",
        "Send the same prompt for many chunks, as llm_batch does; each chunk replaces {chunk}.\n"
        "The parameter names prompt_template and context_chunks work too.",
    ),
    HostFunction(
        "recursive_lm",
        "(query, context_subset)",
        "Answer a question over a part of the context, a string, or a list or dict of strings.",
    ),
    HostFunction(
        "recursive_batch",
        "(tasks)",
        "Answer several questions concurrently; a task is {'query': …, 'context': …}. "
        "The answers are in the order of the tasks.",
    ),
    HostFunction(
        "rlm_query",
        "(prompt, context=None, model=None)",
        "Answer a prompt that contains its context, or a question over the context argument.",
    ),
    HostFunction(
        "rlm_query_batched",
        "(prompts, model=None)",
        "Answer several prompts concurrently, each as rlm_query does. "
        "The answers are in the order of the prompts.",
    ),
    HostFunction(
        "cite",
        "(quote, source=None)",
        "The SpanRef of these exact words in the document, or None if it does not contain them; "
        "source is a name such as 'context_0'.",
    ),
)

STORE_FUNCTIONS = (
    HostFunction(
        "rlm_worker",
        "(prompt, store_cards=None)",
        "Run a worker, with its own REPL, that explores the context; "
        "it returns a commit for apply_commit.",
    ),
    HostFunction(
        "rlm_worker_batched",
        "(tasks, max_parallel=None)",
        "Run several workers concurrently; a task is a prompt or {'prompt': …, 'store_cards': …}.",
    ),
    HostFunction(
        "apply_commit",
        "(commit, batch_prefix='')",
        "Merge a worker's commit into the store; merging it again changes nothing. "
        "Returns what was created, and the error if there is one.",
    ),
    HostFunction(
        "store.llm_map",
        "(tasks)",
        "Send the prompts of all tasks {'name': …, 'prompt': …} concurrently; "
        "returns the id of the batch.\n"
        "store.children(id) are the objects with the replies, in the order of the tasks.",
    ),
    HostFunction(
        "store.llm_reduce",
        "(ids_or_query, prompt)",
        "Reduce the objects of these ids, of a query or of a batch id to one with the prompt; "
        "returns the id of the new object.",
    ),
)


def store_method(name: str) -> HostFunction:
    """A method of the store, with its parameters; their types are not shown."""
    method = getattr(WorkerStoreProxy, name)
    return HostFunction(
        f"store.{name}", str(_plain(inspect.signature(method))), inspect.getdoc(method) or ""
    )


@cache
def store_signature(name: str) -> inspect.Signature:
    """The signature of a store method, without `self` and types."""
    return _plain(inspect.signature(getattr(WorkerStoreProxy, name)))


def _plain(signature: inspect.Signature) -> inspect.Signature:
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    return inspect.Signature(parameters)


STORE_METHODS = tuple(map(store_method, sorted(REPL_METHODS)))

# Names in the REPL, which tools cannot use
RESERVED = frozenset(
    {
        *(spec.name for spec in (*FUNCTIONS, *STORE_FUNCTIONS) if "." not in spec.name),
        *(alias for spec in FUNCTIONS for alias in spec.aliases),
        *"store context context_metadata answer".split(),
        *"FINAL FINAL_VAR SUBMIT final_answer SHOW_VARS SpanRef LLMError LLMReply".split(),
    }
)
