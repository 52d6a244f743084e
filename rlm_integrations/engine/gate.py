"""Answers the calls of model code. All arguments are hostile until they are checked."""

import asyncio
import hashlib
import inspect
import reprlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rlm_integrations._concurrency.work import spend
from rlm_integrations.engine.call_id import CallId
from rlm_integrations.engine.journal import Answer, keep_answer, wait_if_ended
from rlm_integrations.engine.notebook import Notebook
from rlm_integrations.engine.notes import CallNote
from rlm_integrations.engine.tree import Tree
from rlm_integrations.errors import InputError, JournalError, RLMError
from rlm_integrations.events import FunctionCalled, new_id
from rlm_integrations.records import HostFunction, SpanRef, StoreObject
from rlm_integrations.sandbox.base import HostCallError
from rlm_integrations.sandbox.wire import Opaque
from rlm_integrations.trajectory import FunctionCall

_OFF_LOOP_CHARS = 1 << 18  # longer arguments are hashed in a thread
_MAX_ARGUMENTS = 10  # of a call, in the record
_ERROR_CHARS = 500  # of an exception, in the record
_INTEGER_BITS = 300  # a longer integer is named by its length


class HostCall:
    """A call of model code while it is being answered.

    Attributes:
        id: Its identity.
        notebook: Records the activity of the calling block.
        notes: The notes of the call so far, without those of its model calls and child runs.
        is_recorded: Whether the journal has the answer already: the store keeps it with the events.
    """

    def __init__(self, id_: CallId, gate: "Gate") -> None:
        self.id = id_
        self.notebook = gate.notebook
        self.notes: list[CallNote] = []
        self.is_recorded = False
        self._gate = gate

    async def wait_if_missing(self, id_: CallId) -> None:
        """In the replay of a block that did not get an answer to this call or part of a call: wait
        until the block has ended.

        Raises:
            ReplayDivergedError: The block did not make the call.
        """
        await self._gate.wait_if_missing(id_)

    def note(self, note: CallNote) -> None:
        """Add a note. Thread-safe."""
        self.notes.append(note)
        self.notebook.add_note(note)


@dataclass(frozen=True, slots=True)
class Function:
    """A host function and its implementation.

    Attributes:
        spec: Its description for model code.
        answer: Answers a `HostCall` with the arguments.
        asks_models: Whether it consists of model calls and child runs, which the journal stores
            individually. A replay calls the function again, and the journal answers its parts.
    """

    spec: HostFunction
    answer: Callable[..., Awaitable[Any]]
    asks_models: bool = False


class Gate:
    """Answers the calls of model code. It identifies a call, looks it up in the journal, calls the
    host function if there is no answer, stores the answer, and passes its notes to the block.

    Calls are identified in the order of their arrival.

    Args:
        run: The path of the run.
        functions: The functions that its code may call.
        tree: The objects that all runs of the tree share.
        notebook: The notebook of the current block.
        parent: The id of the run in the events.

    Attributes:
        notebook: Records the activity of the current block.
        on_missing: If set, a call without an answer in the journal is not answered, and this is
            called with it instead: the block that is being replayed got no answer to it.
        unanswered: The calls of the current block that were cancelled.
    """

    def __init__(
        self, run: str, functions: Sequence[Function], tree: Tree, notebook: Notebook, parent: str
    ) -> None:
        self.run = run
        self.notebook = notebook
        self.on_missing: Callable[[CallId], None] | None = None
        self.unanswered: list[CallId] = []
        self._tree = tree
        self._parent = parent
        self._functions = {function.spec.name: function for function in functions}
        self._signatures: dict[str, inspect.Signature] = {}  # of the functions called so far
        self._seen: Counter[tuple[int, str, str]] = Counter()
        self._arrivals = asyncio.Lock()  # first in, first out

    @property
    def specs(self) -> list[HostFunction]:
        """The descriptions of all functions, for the REPL."""
        return [function.spec for function in self._functions.values()]

    async def __call__(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Answer one call; see `sandbox.base.AnswerCall`."""
        async with self._arrivals:
            id_ = await self._identify(block, function, args, kwargs)
        call, begun = HostCall(id_, self), self._tree.clock.now()
        error: HostCallError | None = None
        try:
            return await self._answer(call, self._functions[function], args, kwargs)
        except HostCallError as raised:
            error = raised
            raise
        except asyncio.CancelledError:
            self.unanswered.append(id_)
            raise
        finally:
            if not self._functions[function].asks_models:
                self._note(call, args, kwargs, begun, error)
            del error  # its traceback refers to this frame

    async def wait_if_missing(self, id_: CallId) -> None:
        """See `HostCall.wait_if_missing`."""
        if self._tree.find(id_) is not None:
            return
        if self.on_missing is not None:
            self.on_missing(id_)
            await asyncio.get_running_loop().create_future()
        await wait_if_ended(self._tree.journal)

    async def _answer(
        self, call: HostCall, function: Function, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        known = None if function.asks_models else self._tree.find(call.id)
        if known is None:
            if not function.asks_models:
                await self.wait_if_missing(call.id)
            known = await self._call_function(call, function, args, kwargs)
        else:
            for note in known.notes:
                call.note(note)
        if known.error is not None:
            kind, message = known.error
            raise HostCallError(message, type=kind)
        return known.value

    async def _call_function(
        self, call: HostCall, function: Function, args: list[Any], kwargs: dict[str, Any]
    ) -> Answer:
        """Call the function, and store its answer before the code receives it."""
        value = error = None
        try:
            value = await self._value(call, function, args, kwargs)
        except HostCallError as raised:
            error = (raised.type, str(raised))
        # The journal stores model calls and child runs individually: not stored here again.
        kept = Answer(None if function.asks_models else value, tuple(call.notes), error)
        if not call.is_recorded and (call.notes or not function.asks_models):
            await keep_answer(self._tree.journal, call.id, kept)
        return Answer(value, kept.notes, error)

    async def _value(
        self, call: HostCall, function: Function, args: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        name = function.spec.name
        if name not in self._signatures:
            self._signatures[name] = inspect.signature(function.answer)
        try:
            bound = self._signatures[name].bind(call, *args, **kwargs)
        except TypeError as error:
            raise HostCallError(
                f"{name}{function.spec.signature}: {error}", type="TypeError"
            ) from None
        try:
            return await function.answer(*bound.args, **bound.kwargs)
        except JournalError:
            raise  # an error of the host, not of the code
        except InputError as error:
            raise HostCallError(str(error), type="ValueError") from error
        except RLMError as error:
            raise HostCallError(str(error)) from error
        except (MemoryError, OSError) as error:
            raise HostCallError(
                f"{name}: the host is out of memory or files; request less",
                type=type(error).__name__,
            ) from error

    def _note(
        self,
        call: HostCall,
        args: list[Any],
        kwargs: dict[str, Any],
        begun: float,
        error: HostCallError | None,
    ) -> None:
        done = FunctionCall(
            path=call.id.path,
            function=call.id.function,
            arguments=_SHORTENED.call(args, kwargs),
            start=begun,
            end=self._tree.clock.now(),
            error=None if error is None else f"{error.type}: {error}"[:_ERROR_CHARS],
        )
        call.notebook.add_function(done)
        if self._tree.emit:
            self._tree.emit(FunctionCalled(id=new_id("function"), parent=self._parent, call=done))

    async def _identify(
        self, block: int, function: str, args: list[Any], kwargs: dict[str, Any]
    ) -> CallId:
        is_apart = is_large([args, kwargs])
        digest = (
            await self._tree.threads.free(digest_of, args, kwargs)
            if is_apart
            else digest_of(args, kwargs)
        )
        occurrence = self._seen[block, function, digest]
        self._seen[block, function, digest] += 1
        return CallId(self.run, block, function, digest, occurrence)


class _ArgumentsRepr(reprlib.Repr):
    """Formats the arguments of a call, each shortened."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 100

    def repr1(self, x: Any, level: int) -> str:
        """Format one value."""
        if isinstance(x, str):
            return self.repr_str(str.__str__(x), level)
        if isinstance(x, StoreObject):
            return f"<object {x.id[:100]}>"
        if isinstance(x, Opaque):
            return f"<{x.type[:100]}>"
        if isinstance(x, dict):
            return self.repr_dict(x, level)
        if isinstance(x, int) and x.bit_length() > _INTEGER_BITS:
            return f"<int of {x.bit_length():,} bits>"
        return super().repr1(x, level)

    def repr_dict(self, x: dict[str, Any], level: int) -> str:
        """Format the first entries of a dict, without sorting what may be a million keys."""
        if level <= 0:
            return "{...}" if x else "{}"
        shown = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in islice(x.items(), self.maxdict)
        ]
        return f"{{{', '.join([*shown, *(['...'] if len(x) > self.maxdict else [])])}}}"

    def call(self, args: list[Any], kwargs: dict[str, Any]) -> str:
        """Format all arguments, up to ten positional and ten keyword arguments."""
        named = list(kwargs.items())[:_MAX_ARGUMENTS]
        return ", ".join(
            [
                *map(self.repr, args[:_MAX_ARGUMENTS]),
                *(f"{name[:100]}={self.repr(value)}" for name, value in named),
            ]
        )


_SHORTENED = _ArgumentsRepr()


def digest_of(args: list[Any], kwargs: dict[str, Any]) -> str:
    """SHA-256 of arguments in a canonical form: values with type and length, keys in order."""
    digest = hashlib.sha256()
    _feed(digest.update, [args, kwargs])
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    match value:
        case str():
            spend(len(value))
            text = value.encode("utf-8", "surrogatepass")
            update(b"s%d:" % len(text))
            update(text)
        case list() | tuple():
            spend(len(value))
            update(b"l%d:" % len(value))
            for item in value:
                _feed(update, item)
        case dict():
            update(b"d%d:" % len(value))
            for key in sorted(value):
                _feed(update, key)
                _feed(update, value[key])
        case SpanRef():
            _feed(update, ["span", value.source, value.start, value.end])
        case StoreObject():
            _feed(update, ["object", value.id])
        case Opaque():
            _feed(update, ["opaque", value.type, value.text])
        case _:
            _feed(update, f"{type(value).__name__} {value!r}")


def is_large(value: Any) -> bool:
    """Whether to process a value in a thread. The traversal stops as soon as this is known."""
    room, inside = _OFF_LOOP_CHARS, [iter([value])]
    while inside and room >= 0:
        each = next(inside[-1], inside)
        room -= 8
        if each is inside:
            inside.pop()
        elif isinstance(each, str):
            room -= len(each)
        elif isinstance(each, list | tuple):
            inside.append(iter(each))
        elif isinstance(each, dict):
            inside += [iter(each), iter(each.values())]
    return room < 0
