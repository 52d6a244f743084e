"""The REPL: it runs one block at a time and keeps the variables. It does not depend on processes;
both the child and `inprocess` use it.
"""

import ast
import asyncio
import inspect
import itertools
import json
import linecache
import re
import time
import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ..records import HostFunction, LLMError, LLMReply, SpanRef
from . import rewrite
from .describe import describe_exception, describe_value, message_of
from .finals import Finals, HostObject, listed, present
from .grep import grep_over
from .host_texts import READ_TEXTS, Ask, HostTexts, LazyTexts
from .output import Output
from .replies import AwaitableList, AwaitableText

SendCall = Callable[[int, str, list[Any], dict[str, Any]], "Future[Any]"]

ECHO_KEPT = 10_000  # characters of a string that is the last expression of a block
VARIABLES_SHOWN = 100  # variables listed by SHOW_VARS and after a block
REBOUND_TOLD = 50  # names


class Variables(dict[str, str]):
    """The result of SHOW_VARS: each variable and its description, one per line."""

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {kind}" for name, kind in self.items()) or "no variables yet"


def host_variables(names: Sequence[str], metadata: dict[str, Any], ask: Ask) -> dict[str, Any]:
    """The variables of a context whose texts are read when code asks for them; see
    `context_variables`. There are none by number.
    """
    texts = HostTexts(ask, metadata, names)
    return {"context": LazyTexts(texts), "context_metadata": metadata, "grep": grep_over(texts)}


def context_variables(
    texts: Sequence[str],
    names: Sequence[str] | None,
    *,
    is_list: bool,
    metadata: Any,
    objects: Sequence[int] = (),
) -> dict[str, Any]:
    """The variables of the context: `context`, `context_0` and so on, `context_metadata`, and
    `grep` for named texts.

    Args:
        texts: The sources.
        names: Their names, if `context` is a mapping.
        is_list: Whether there may be several.
        metadata: The value of `context_metadata`.
        objects: The numbers of the sources that are JSON and that `context` has as objects.
    """
    numbered: dict[str, Any] = {f"context_{number}": text for number, text in enumerate(texts)}
    items: Sequence[Any] = list(texts) if objects else texts
    for number in objects:
        items[number] = json.loads(texts[number])  # type: ignore[index]
    variables = {**numbered, "context": items, "context_metadata": metadata}
    if names is not None:
        variables["context"] = dict(zip(names, items, strict=True))
        # Its own mapping: code may change `context`
        variables["grep"] = grep_over(dict(zip(names, texts, strict=True)))
    elif not is_list:
        variables["context"] = items[0]
    return variables


class Repl:
    """One namespace and the names bound in it.

    Args:
        call: Sends a call to the host: (block, function, args, kwargs) to a future of its answer.
        functions: The host's functions.
        reserved: Further names that are restored before each block, such as `context`.
        output: Receives the output of the code.
        namespace: The dict that holds the variables; a new one by default.
    """

    def __init__(
        self,
        call: SendCall,
        functions: Sequence[HostFunction],
        reserved: Mapping[str, Any],
        output: Output,
        namespace: dict[str, Any] | None = None,
    ) -> None:
        self._call = call
        self._output = output
        self._block = 0
        self._flags = 0
        self._awaits = False  # whether the block awaits something
        self._runner: asyncio.Runner | None = None
        self.running = False  # whether model code is running, and may be interrupted
        self.interrupted = False
        self._stubs: dict[str, Any] = {}
        for function in functions:
            if function.name == READ_TEXTS:
                continue
            stub = self._stub(function)
            for name in (function.name, *function.aliases):
                self._stubs[name] = stub
        self.namespace: dict[str, Any] = {} if namespace is None else namespace
        self._finals = Finals(self.namespace, self.show_variables)
        self._reserved: dict[str, Any] = {
            **reserved,
            **self._finals.functions,
            "SHOW_VARS": self._show_vars(),
            "SpanRef": SpanRef,
            "LLMError": LLMError,
            "LLMReply": LLMReply,
            rewrite.AWAITABLE: lambda function: getattr(function, "awaitable", function),
            "__name__": "__main__",
            "__builtins__": __builtins__,
        }
        # Names that the model may rebind permanently; the guide for models says that `re` and
        # `json` are available.
        self._offered: dict[str, Any] = {**self._finals.dialects, "re": re, "json": json}
        # Methods of host objects, under the names that errors show
        self._kinds: dict[str, type[HostObject]] = {}
        self._bound: dict[str, Any] = {}  # the values of the reserved names at the block's start
        self.namespace["answer"] = self._finals.answer
        self._bind()

    # Values in the namespace of model code

    def _stub(self, function: HostFunction) -> Callable[..., Any]:
        def send(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Future[Any]":
            self._output.flush()
            args, kwargs = (
                tuple(map(listed, args)),
                {key: listed(value) for key, value in kwargs.items()},
            )
            return self._call(self._block, function.name, list(args), kwargs)

        def stub(*args: Any, **kwargs: Any) -> Any:
            return self._awaitable(send(args, kwargs).result())

        async def awaitable(*args: Any, **kwargs: Any) -> Any:
            return self._awaitable(await asyncio.wrap_future(send(args, kwargs)))

        short = function.name.rpartition(".")[2]
        for each in (stub, awaitable):
            each.__doc__ = f"{short}{function.signature}\n\n{function.doc}".strip()
            present(each, short, function.signature)
        vars(stub)["awaitable"] = awaitable
        return stub

    def _awaitable(self, value: Any) -> Any:
        if not self._awaits:
            return value
        if type(value) in {str, LLMReply}:
            return AwaitableText(value, getattr(value, "finish_reason", None))
        return AwaitableList(value) if type(value) is list else value

    def _show_vars(self) -> Callable[[], Variables]:
        def show_vars() -> Variables:
            """Your variables and what they are."""
            return self.show_variables()

        present(show_vars, "SHOW_VARS", "()")
        return show_vars

    def show_variables(self) -> Variables:
        """Your variables and what they are."""
        found = Variables()
        for name, value in list(self.namespace.items()):
            if (
                type(name) is not str
                or name.startswith("_")
                or name in self._bound
                or issubclass(type(value), types.ModuleType)
            ):
                continue  # a key of `globals()` may have any type
            if value is self._finals.answer or value is self._offered.get(name, self):
                continue
            if len(found) == VARIABLES_SHOWN:
                found["…"] = "and more"
                break
            found[name] = describe_value(value)
        return found

    def _bind(self) -> None:
        """Restore the reserved names, even if the last block rebound them."""
        self._bound = dict(self._reserved)
        objects: dict[str, dict[str, Any]] = {}
        for name, stub in self._stubs.items():
            owner, _, method = name.rpartition(".")
            if owner:
                objects.setdefault(owner, {})[method] = stub
            else:
                self._bound[name] = stub
        for owner, methods in objects.items():
            self._bound[owner] = self._kinds.setdefault(
                owner, type(owner, (HostObject,), {"__module__": "__main__"})
            )(**methods)
        self.namespace.update(self._bound)
        for name, value in self._offered.items():
            self.namespace.setdefault(name, value)

    def _rebound(self) -> list[str]:
        """The reserved names that the block has rebound; the next block has the original values
        again.
        """
        rebound = (
            name
            for name, value in self._bound.items()
            if name[0] != "_" and self.namespace.get(name, value) is not value
        )
        return list(itertools.islice(rebound, REBOUND_TOLD))

    def read_texts(self, *args: Any) -> Any:
        """The answer of the host function that reads texts."""
        return self._call(self._block, READ_TEXTS, list(args), {}).result()

    # Running a block.

    def execute(self, code: str, block: int) -> dict[str, Any]:
        """Run one block and return its result: error, final, locals, elapsed, dropped and more.

        Never raises.
        """
        self._block, self._awaits, self.interrupted = block, False, False
        self._finals.begin(names_literal=False)
        self._output.reset()
        self._bind()
        error: dict[str, str] | None = None
        begun = time.perf_counter()
        try:
            try:
                self.running = True
                self._run(code, f"<block-{block}>")
            finally:
                self.running = False
        except SystemExit as leaving:
            if not (leaving.code is None or (type(leaving.code) is int and leaving.code == 0)):
                error = {"type": "SystemExit", "message": message_of(leaving.code), "traceback": ""}
        except BaseException as raised:  # noqa: BLE001
            # Any exception of model code is part of its result
            error = describe_exception(raised)
        if error is not None:
            self.close()
        self._output.flush()
        return {
            "error": error,
            "final": self._finals.result(),
            "rebound": self._rebound(),
            "locals": dict(self.show_variables()),
            "elapsed": time.perf_counter() - begun,
            "dropped": self._output.dropped,
            "interrupted": self.interrupted,
        }

    def _run(self, code: str, file: str) -> None:
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        tree = rewrite.parse_block(code, file)
        self._awaits = any(isinstance(node, ast.Await) for node in ast.walk(tree))
        self._finals.begin(names_literal=rewrite.names_literal(tree))
        body, last = rewrite.compile_block(tree, file, self._stubs.keys(), self._flags)
        self._flags |= rewrite.future_flags(body)
        steps = [body] if last is None else [body, last]
        value: Any = None
        if any(step.co_flags & inspect.CO_COROUTINE for step in steps):
            value = self._in_loop(self._await_steps(steps))
        else:
            for step in steps:
                value = eval(step, self.namespace)  # noqa: S307 - running model code is the purpose
            if inspect.iscoroutine(value):  # a coroutine that the model forgot to await
                value = self._in_loop(value)
        if last is not None:
            self._show(value)

    async def _await_steps(self, steps: Sequence[types.CodeType]) -> Any:
        value: Any = None
        for step in steps:
            value = eval(step, self.namespace)  # noqa: S307 - see above
            if inspect.iscoroutine(value):
                value = await value
        return value

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run on the session's own event loop, so that a later block can await tasks of this
        one.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    def close(self) -> None:
        """Cancel the tasks that blocks left behind and close their event loop."""
        runner, self._runner = self._runner, None
        try:
            if runner is not None:
                runner.close()
        except BaseException:  # noqa: BLE001, S110
            # Leftover tasks of model code may raise anything; the session is over
            pass

    def _show(self, value: Any) -> None:
        if isinstance(value, str | bytes) and len(value) > ECHO_KEPT:
            self._output.write("stdout", f"{value[:ECHO_KEPT]!r}… ({len(value):,} in all)\n")
        elif value is not None:
            self._output.write("stdout", f"{value!r}\n")
