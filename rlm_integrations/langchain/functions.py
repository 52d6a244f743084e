"""LangChain tools, retrievers and other runnables as functions that model code can call."""

import re
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool, StructuredTool, Tool

from rlm_integrations._concurrency.portal import on_portal
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.errors import InputError

_PYTHON_TYPES: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}
_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def function_of(given: Any) -> Any:
    """The REPL function for a LangChain tool, retriever or other runnable; anything else is
    returned unchanged.

    A tool keeps its name, arguments and description. A retriever takes a query and returns dicts
    with `page_content` and `metadata`; any other Runnable takes its input. Their runs are children
    of the calling run.

    Raises:
        InputError: A tool requires arguments that only an agent can inject.
    """
    if isinstance(given, BaseTool):
        return _function_of_tool(given)
    if isinstance(given, Runnable):
        return _function_of_runnable(given)
    return given


def _function_of_tool(tool: BaseTool) -> Callable[..., Any]:
    schema: Any = tool.tool_call_schema
    plain: Mapping[str, Any] = schema if isinstance(schema, dict) else schema.model_json_schema()
    known, required = plain.get("properties", {}), set(plain.get("required", ()))
    whole = tool.get_input_jsonschema()
    if injected := set(whole.get("required", ())) - known.keys():
        raise InputError(
            f"the tool {tool.name!r} takes {', '.join(sorted(injected))} from an agent: code "
            "in the REPL cannot call it"
        )
    parameters = [
        _parameter(name, about, is_required=name in required) for name, about in known.items()
    ]
    parameters.sort(
        key=lambda each: each.default is not Parameter.empty
    )  # Python requires those with defaults last
    signature = Signature(parameters)

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _call_runnable(
            tool,
            dict(signature.bind(*args, **kwargs).arguments),
            has_sync=_has_sync(tool),
            has_async=_has_async(tool),
        )

    return _with_signature(call, tool.name, signature, tool.description)


def _function_of_runnable(runnable: Runnable[Any, Any]) -> Callable[..., Any]:
    inner = runnable
    while isinstance(inner, RunnableBindingBase):
        inner = inner.bound
    is_retriever = isinstance(inner, BaseRetriever)
    argument = Parameter(
        "query" if is_retriever else "input",
        Parameter.POSITIONAL_OR_KEYWORD,
        annotation=str if is_retriever else Any,
    )
    signature = Signature([argument])
    own, inherited = (
        (BaseRetriever, "_aget_relevant_documents") if is_retriever else (Runnable, "ainvoke")
    )
    has_async = getattr(type(inner), inherited) is not getattr(own, inherited)

    async def call(*args: Any, **kwargs: Any) -> Any:
        (given,) = signature.bind(*args, **kwargs).arguments.values()
        found = await _call_runnable(runnable, given, has_sync=True, has_async=has_async)
        return [_as_dict(each) for each in found] if isinstance(found, list) else found

    about = (
        "Finds documents for a query: a list of dicts with page_content and metadata."
        if is_retriever
        else ""
    )
    return _with_signature(call, runnable.get_name(), signature, about)


async def _call_runnable(
    runnable: Runnable[Any, Any], given: Any, *, has_sync: bool, has_async: bool
) -> Any:
    """Call the runnable: with its async API on the caller's own loop, else in a thread, because its
    clients may be tied to another loop.
    """
    if has_async and not (has_sync and on_portal()):
        return await runnable.ainvoke(given)
    return await in_thread(runnable.invoke, given)


def _has_sync(tool: BaseTool) -> bool:
    return tool.func is not None if isinstance(tool, StructuredTool | Tool) else True


def _has_async(tool: BaseTool) -> bool:
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is not None
    # Shows whether a subclass overrides it
    return type(tool)._arun is not BaseTool._arun  # noqa: SLF001


def _parameter(name: str, about: Mapping[str, Any], *, is_required: bool) -> Parameter:
    if not name.isidentifier():
        raise InputError(
            f"a tool's argument {name!r} is not a valid Python name: wrap the tool in a function"
        )
    default = Parameter.empty if is_required else about.get("default")
    return Parameter(
        name,
        Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=_Annotation(_python_type(about)),
    )


class _Annotation:
    """An annotation whose `repr` is the given text."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words


def _python_type(about: Mapping[str, Any]) -> str:
    """A JSON schema type in Python's notation."""
    if "enum" in about:
        return f"Literal[{', '.join(map(repr, about['enum']))}]"
    if "anyOf" in about:
        return " | ".join(dict.fromkeys(map(_python_type, about["anyOf"])))
    if about.get("type") == "array" and "items" in about:
        return f"list[{_python_type(about['items'])}]"
    return _PYTHON_TYPES.get(about.get("type", ""), "Any")


def _with_signature(
    function: Callable[..., Any], name: str, signature: Signature, about: str
) -> Callable[..., Any]:
    """Set the function's name, docstring and signature, which the REPL's prompt shows."""
    words = re.sub(r"\W+", "_", name).strip("_")
    plain = words if name.isidentifier() and "_" in name else _WORD_STARTS.sub("_", words).lower()
    function.__name__ = function.__qualname__ = (
        name if name.isidentifier() and name.islower() else plain
    )
    function.__doc__ = about
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _as_dict(found: Any) -> Any:
    return (
        {"page_content": found.page_content, "metadata": found.metadata}
        if isinstance(found, Document)
        else found
    )
