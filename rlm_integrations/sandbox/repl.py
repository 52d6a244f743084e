"""The REPL itself: variables that last, one block at a time. It knows nothing of processes; the child and `inprocess` both run it."""

import ast
import asyncio
import inspect
import io
import linecache
import os
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from ..records import HostFunction, LLMError, SpanRef
from . import rewrite
from .wire import Opaque

Call = Callable[[int, str, list[Any], dict[str, Any]], "Future[Any]"]
Stream = Literal["stdout", "stderr"]

TRACEBACK_KEPT = 4_000  # characters, from the end
MESSAGE_KEPT = 2_000
FRAMES_KEPT = 12
ECHO_KEPT = 10_000  # characters of a text that is the last expression of a block
VARIABLES_SHOWN = 100
_FLUSH = 1 << 16

_OURS = os.path.dirname(os.path.abspath(__file__))
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def printable(text: str) -> str:
    """Text that every encoding of Unicode holds: lone surrogates become their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Output:
    """What model code writes: both streams in order, each up to its bound, the rest counted.

    Args:
        kept: Characters kept of each stream in one block.
        send: Takes what has been written, as (stream, text) in order.
    """

    def __init__(self, kept: Mapping[Stream, int], send: Callable[[list[tuple[Stream, str]]], None]) -> None:
        self._kept = kept
        self._send = send
        # Re-entrant, since a destructor that prints may run while its own thread writes.
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Begin a new block."""
        with self._lock:
            self._room = dict(self._kept)
            self._pieces: list[tuple[Stream, str]] = []
            self._pending = 0
            self.dropped = 0

    def write(self, stream: Stream, text: str) -> None:
        """Add to a stream."""
        with self._lock:
            kept = text[: self._room[stream]]
            self._room[stream] -= len(kept)
            self.dropped += len(text) - len(kept)
            if kept:
                self._pieces.append((stream, kept))
                self._pending += len(kept)
        if self._pending > _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Send what has been written so far."""
        with self._lock:
            pieces, self._pieces, self._pending = self._pieces, [], 0
            if pieces:
                self._send(pieces)


class OutputStream(io.TextIOBase):
    """One stream of an `Output` as a text file that can be written."""

    def __init__(self, output: Output, stream: Stream) -> None:
        self._output = output
        self._stream: Stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed has a plain attribute here
        """The encoding that code finds when it asks."""
        return "utf-8"

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Add text to the stream; see `Output`."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(self._stream, text)
        return len(text)


class _AwaitableText(str):
    """A reply that may be awaited although it is already there: `r = llm_query(p)`, later `await r`."""

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()  # makes this a generator, which is what `await` needs
        return str(self)


class _AwaitableList(list[Any]):
    """Replies that may be awaited although they are already there."""

    __slots__ = ()

    def __await__(self) -> Any:
        yield from ()
        return list(self)


class Variables(dict[str, str]):
    """What SHOW_VARS gives: each variable and what it is, a line each."""

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {kind}" for name, kind in self.items()) or "no variables yet"


class Repl:
    """One namespace and what is bound in it.

    Args:
        call: Sends a call to the host: (block, function, args, kwargs) to a future of its answer.
        functions: The host's functions.
        reserved: Further names that are bound again before each block, such as `context`.
        output: Takes what the code prints.
        namespace: Where its variables live; a new one by default.
    """

    def __init__(
        self,
        call: Call,
        functions: Sequence[HostFunction],
        reserved: Mapping[str, Any],
        output: Output,
        namespace: dict[str, Any] | None = None,
    ) -> None:
        self._call = call
        self._output = output
        self._block = 0
        self._flags = 0
        self._final: dict[str, Any] | None = None
        self._awaits = False  # whether the block awaits something
        self._literal_final = False  # whether the block names FINAL_VAR's variable as a literal
        self._runner: asyncio.Runner | None = None
        self.running = False  # whether model code runs now, and may be interrupted
        self.interrupted = False
        self._stubs: dict[str, Any] = {}
        for function in functions:
            stub = self._stub(function)
            for name in (function.name, *function.aliases):
                self._stubs[name] = stub
        self._reserved: dict[str, Any] = {
            **reserved,
            "FINAL": self._final_value,
            "FINAL_VAR": self._final_variable,
            "SUBMIT": self._final_value,
            "final_answer": self._final_value,
            "SHOW_VARS": self.show_variables,
            "SpanRef": SpanRef,
            "LLMError": LLMError,
            rewrite.AWAITABLE: lambda function: getattr(function, "awaitable", function),
        }
        self._given = {*self._reserved, *self._stubs, *(name.partition(".")[0] for name in self._stubs)}
        self._answer = {"content": "", "ready": False}
        self.namespace: dict[str, Any] = {} if namespace is None else namespace
        self.namespace.update({"__name__": "__main__", "__builtins__": __builtins__, "answer": self._answer})
        self._bind()

    # What model code finds in its namespace.

    def _stub(self, function: HostFunction) -> Callable[..., Any]:
        def send(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Future[Any]":
            self._output.flush()
            return self._call(self._block, function.name, list(args), kwargs)

        def stub(*args: Any, **kwargs: Any) -> Any:
            return self._awaitable(send(args, kwargs).result())

        async def awaitable(*args: Any, **kwargs: Any) -> Any:
            return self._awaitable(await asyncio.wrap_future(send(args, kwargs)))

        short = function.name.rpartition(".")[2]
        for each in (stub, awaitable):
            each.__name__ = each.__qualname__ = short
            each.__doc__ = f"{short}{function.signature}\n\n{function.doc}".strip()
            each.__module__ = "__main__"
        stub.awaitable = awaitable  # type: ignore[attr-defined] # functions take attributes; mypy does not know which
        return stub

    def _awaitable(self, value: Any) -> Any:
        if not self._awaits:
            return value
        if type(value) is str:
            return _AwaitableText(value)
        return _AwaitableList(value) if type(value) is list else value

    def _final_value(self, value: Any = None, evidence: Any = ()) -> None:
        """Finish with this value; `evidence` holds SpanRefs or exact quotes."""
        self._final = {"value": value, "evidence": list(evidence) if isinstance(evidence, list | tuple | set) else [evidence]}

    def _final_variable(self, name: Any, evidence: Any = ()) -> None:
        """Finish with the value of the variable of this name."""
        if not isinstance(name, str):
            return self._final_value(name, evidence)
        if name in self.namespace:
            return self._final_value(self.namespace[name], evidence)
        if self._literal_final:
            known = ", ".join(self.show_variables()) or "none"
            raise NameError(f"FINAL_VAR({name!r}): there is no such variable; the variables are: {known}")
        return self._final_value(name, evidence)

    def show_variables(self) -> Variables:
        """Your variables and what they are."""
        found = Variables()
        for name, value in list(self.namespace.items()):
            if name.startswith("_") or name in self._given or value is self._answer or isinstance(value, types.ModuleType):
                continue
            if len(found) == VARIABLES_SHOWN:
                found["…"] = "and more"
                break
            found[name] = _kind(value)
        return found

    def _bind(self) -> None:
        """Bind the reserved names, whatever the last block made of them."""
        self.namespace.update(self._reserved)
        objects: dict[str, dict[str, Any]] = {}
        for name, stub in self._stubs.items():
            owner, _, method = name.rpartition(".")
            if owner:
                objects.setdefault(owner, {})[method] = stub
            else:
                self.namespace[name] = stub
        for owner, methods in objects.items():
            self.namespace[owner] = types.SimpleNamespace(**methods)

    # Running a block.

    def execute(self, code: str, block: int) -> dict[str, Any]:
        """Run one block and say what it did: error, final, locals, elapsed, dropped. Raises nothing."""
        self._block, self._final, self._awaits, self._literal_final, self.interrupted = block, None, False, False, False
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
            if leaving.code not in {None, 0}:
                error = {"type": "SystemExit", "message": str(leaving.code)[:MESSAGE_KEPT], "traceback": ""}
        except BaseException as raised:  # noqa: BLE001 - whatever model code raises is its result
            error = _describe(raised)
        if error is not None:
            self.close()
        self._output.flush()
        if self._final is None:
            self._final = self._final_of_answer()
        return {
            "error": error,
            "final": self._final,
            "locals": dict(self.show_variables()),
            "elapsed": time.perf_counter() - begun,
            "dropped": self._output.dropped,
            "interrupted": self.interrupted,
        }

    def _run(self, code: str, file: str) -> None:
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        tree = rewrite.parse(code, file)
        self._awaits = any(isinstance(node, ast.Await) for node in ast.walk(tree))
        self._literal_final = any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "FINAL_VAR"
            and any(isinstance(argument, ast.Constant) for argument in node.args)
            for node in ast.walk(tree)
        )
        body, last = rewrite.compile_block(tree, file, self._stubs.keys(), self._flags)
        self._flags |= rewrite.future_flags(body)
        steps = [body] if last is None else [body, last]
        value: Any = None
        if any(step.co_flags & inspect.CO_COROUTINE for step in steps):
            value = self._in_loop(self._await_steps(steps))
        else:
            for step in steps:
                value = eval(step, self.namespace)  # noqa: S307 - running model code is what this is for
            if inspect.iscoroutine(value):  # the model forgot to await it
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
        """Run on the session's own event loop, so that a later block can await what this one began."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    def close(self) -> None:
        """End the tasks and the event loop that blocks have left behind."""
        runner, self._runner = self._runner, None
        try:
            if runner is not None:
                runner.close()
        except BaseException:  # noqa: BLE001, S110 - what model code left in its loop may raise anything, and cannot matter any more
            pass

    def _show(self, value: Any) -> None:
        if isinstance(value, str | bytes) and len(value) > ECHO_KEPT:
            self._output.write("stdout", f"{value[:ECHO_KEPT]!r}… ({len(value):,} in all)\n")
        elif value is not None:
            self._output.write("stdout", f"{value!r}\n")

    def _final_of_answer(self) -> dict[str, Any] | None:
        """The dialect that finishes by `answer["ready"] = True`; a variable of that name which is anything else is the model's own."""
        answer = self.namespace.get("answer")
        if type(answer) is dict and answer.keys() == {"content", "ready"} and answer["ready"] is True:
            answer["ready"] = False  # once
            return {"value": answer["content"], "evidence": []}
        return None


def _kind(value: Any) -> str:
    name = type(value).__name__
    match value:
        case str() | bytes() if type(value).__len__ in {str.__len__, bytes.__len__}:
            return f"{name}, {len(value):,} {'characters' if isinstance(value, str) else 'bytes'}"
        case _ if type(value) in {list, tuple, dict, set, frozenset, _AwaitableList}:
            return f"{name.removeprefix('_Awaitable').lower()} of {len(value):,}"
    return name.removeprefix("_Awaitable").lower() if name.startswith("_Awaitable") else name


def opaque(value: Any) -> Opaque:
    """What crosses in the place of a value that cannot: its type and its text, as far as it has one."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - a class of the model's own may do anything
        text = f"<{type(value).__name__} whose text raises {type(error).__name__}>"
    return Opaque(type(value).__name__, text)


def _describe(error: BaseException) -> dict[str, str]:
    """An exception as data: its traceback shows the model's frames and the library's, none of ours, and no path of this machine."""
    try:
        whole = traceback.TracebackException(type(error), error, error.__traceback__, limit=-1000, compact=True)
        _strip(whole)
        text = "".join(whole.format())
    except BaseException:  # noqa: BLE001 - no memory left, or an exception whose text raises
        text = ""
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - likewise
        message = ""
    return {"type": type(error).__name__, "message": message[:MESSAGE_KEPT], "traceback": text[-TRACEBACK_KEPT:]}


def _strip(whole: traceback.TracebackException) -> None:
    frames = []
    inside = True  # in our machinery, and in what it calls of the library, until the model's next frame
    for frame in whole.stack:
        inside = not frame.filename.startswith("<block-") and (inside or frame.filename.startswith(_OURS))
        if inside or frame.filename.startswith("<frozen"):
            continue
        if frame.filename.startswith(_LIBRARY):
            frame.filename = frame.filename.removeprefix(_LIBRARY)
        frames.append(frame)
    if len(frames) > FRAMES_KEPT:
        frames = frames[:2] + frames[2 - FRAMES_KEPT :]
    whole.stack = traceback.StackSummary.from_list(frames)
    for linked in (whole.__cause__, whole.__context__, *(whole.exceptions or ())):
        if linked is not None:
            _strip(linked)


def forbid_builtins() -> None:
    """Give builtins that cannot work here an error of their own."""
    import builtins

    def refused(name: str, reason: str) -> Callable[..., Any]:
        def stand_in(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError(f"{name}() does not work here: {reason}")

        stand_in.__name__ = stand_in.__qualname__ = name
        return stand_in

    real_open = open

    def open_file(*args: Any, **kwargs: Any) -> Any:
        try:
            return real_open(*args, **kwargs)
        except PermissionError as error:
            raise PermissionError(error.errno, "files cannot be opened here; the document is in the variable `context`") from None

    open_file.__name__ = open_file.__qualname__ = "open"
    builtins.input = refused("input", "nobody is there to answer; decide from `context`")
    builtins.breakpoint = refused("breakpoint", "there is no terminal; use print()")
    builtins.open = open_file
    os.uname = lambda: os.uname_result(("Linux", "sandbox", "", "", ""))
    sys.stdin = io.StringIO("")
