"""The engine as a tool of agents and routers."""

import re

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.tools import QueryEngineTool

from rlm_integrations.errors import InputError
from rlm_integrations.llama_index.query_engine import RLMQueryEngine

DESCRIPTION = (
    "Answers a question over documents that are too long to read, with exact quotes as sources. Ask in full sentences and name what you "
    "are looking for: each question is answered by itself."
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST = 1024  # characters of a description; LlamaIndex refuses longer ones when the tool is sent to a model


def as_query_engine_tool(engine: BaseQueryEngine, name: str = "ask_document", description: str = DESCRIPTION) -> QueryEngineTool:
    """A tool that asks the engine; as a tool it never streams.

    Args:
        engine: The engine.
        name: What the model calls it: letters, digits, "_" and "-".
        description: What the model is told about it.

    Raises:
        InputError: An argument cannot work.
    """
    if not isinstance(engine, BaseQueryEngine):
        raise InputError(f"a query engine is needed, not {type(engine).__name__}")
    given: tuple[object, object] = name, description  # whatever the annotations say
    if not isinstance(given[0], str) or not _NAME.fullmatch(given[0]):
        raise InputError(f"name={name!r}: models take names of 1 to 64 letters, digits, '_' and '-'")
    if not isinstance(given[1], str) or not given[1].strip() or len(given[1]) > _LONGEST:
        raise InputError(f"description must be a text of 1 to {_LONGEST:,} characters, because LlamaIndex refuses longer ones")
    plain = engine.without_streaming() if isinstance(engine, RLMQueryEngine) else engine
    return QueryEngineTool.from_defaults(plain, name=name, description=description)
