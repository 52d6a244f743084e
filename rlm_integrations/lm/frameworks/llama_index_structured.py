"""LlamaIndex's models, called so that they answer in a JSON schema."""

import json
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool
from pydantic import Field, create_model

from rlm_integrations.errors import InputError
from rlm_integrations.lm.openai.model import response_format


def takes_response_format(model: LLM) -> bool:
    """Whether it has OpenAI's API, in which a reply itself has the schema."""
    return any(
        each.__module__.startswith("llama_index.llms.openai") for each in type(model).__mro__
    )


def check_schema(model: LLM) -> None:
    """Check that the model can answer in a JSON schema.

    Raises:
        InputError: It cannot.
    """
    if takes_response_format(model):
        return
    if not isinstance(model, FunctionCallingLLM) or not model.metadata.is_function_calling_model:
        raise InputError(
            "structured=True needs a model with OpenAI's response_format or with tools, and "
            f"LlamaIndex's {type(model).__name__} has neither"
        )


def schema_arguments(model: LLM, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that has to answer in this schema: a format, or a tool that must be
    called.
    """
    if takes_response_format(model):
        return {"response_format": response_format(schema)}
    name, about = str(schema["title"]), str(schema["description"])
    required: dict[str, Any] = {
        each: (str if "type" in given else str | None, Field(description=given["description"]))
        for each, given in schema["properties"].items()
    }
    tool = FunctionTool.from_defaults(
        lambda **_: "", name=name, description=about, fn_schema=create_model(name, **required)
    )
    return {"tools": [tool], "tool_required": True, "allow_parallel_tool_calls": False}


def with_fields_as_text(reply: ChatResponse) -> ChatResponse:
    """The response with the arguments of its tool call as its text."""
    calls = [block for block in reply.message.blocks if isinstance(block, ToolCallBlock)]
    if not calls:
        return reply
    given = calls[0].tool_kwargs
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    message = ChatMessage(text, role=MessageRole.ASSISTANT)
    return reply.model_copy(update={"message": message})
