"""How model code returns its answer: with FINAL and FINAL_VAR, with SUBMIT and `final_answer` as in
other libraries, or with the dict `answer`.
"""

import re
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .host_texts import TextItems, TextValues
from .signatures import signature_of

FINALS_KEPT = 100  # the latest ones of a block
_WALKED = 10_000  # how many items of a container are checked for functions and the like
_NAME = re.compile(r"\w+")
# The variable at the start of `found["a"]`, `found.a` or `found(a)`
_ROOT = re.compile(r"([^\W\d]\w*)(?=[.\[(])")
_LISTED: tuple[type, ...] = (
    *(type({}.keys()), type({}.values()), type({}.items()), range, deque),
    *(TextValues, TextItems),
)
_NOT_VALUES: tuple[tuple[type, str], ...] = (
    (types.FunctionType, "a function"),
    (types.BuiltinFunctionType, "a function"),
    (types.MethodType, "a function"),
    (types.ModuleType, "a module"),
    (types.CoroutineType, "a coroutine that was not awaited"),
    (type, "a class"),
)


class HostObject(types.SimpleNamespace):
    """An object whose methods are host functions. In the REPL it has its own class, under the name
    that the model knows.
    """

    __module__ = "__main__"  # shown by `help`

    def __repr__(self) -> str:
        return f"<an object with the methods {', '.join(vars(self))}>"


def present(function: Any, name: str, signature: str) -> None:
    """Set a function's name and signature as model code sees them, and hide that it belongs to this
    package.
    """
    function.__name__ = function.__qualname__ = name
    function.__module__ = "__main__"
    function.__signature__ = signature_of(signature)


def listed(value: Any) -> Any:
    """An iterator, a view or a range as a list; any other value unchanged."""
    kind = type(value)
    return list(value) if kind in _LISTED or hasattr(kind, "__next__") else value


class Finals:
    """The answers that the code of one block returned.

    Args:
        namespace: The variables.
        variables: Returns the names of the model's own variables.

    Attributes:
        names_literal: Whether the block passes a literal name to FINAL_VAR.
        functions: The functions to bind in every block, by name.
        dialects: The values to bind unless the model has bound the name itself.
        answer: The dict that code finishes with by setting `answer["ready"] = True`.
    """

    def __init__(self, namespace: dict[str, Any], variables: Callable[[], Iterable[str]]) -> None:
        self._namespace = namespace
        self._variables = variables
        self._taken: deque[tuple[str, Any, list[Any]]] = deque(maxlen=FINALS_KEPT)
        self.names_literal = False
        self.answer: dict[str, Any] = {"content": "", "ready": False}
        missing = object()

        # Functions, not methods: Python's errors for wrong calls then show the names that the model
        # knows.
        def final(value: Any = missing, evidence: Any = (), **fields: Any) -> None:
            """Finish with this value; `evidence` is a list of SpanRefs or exact quotes."""
            self._take(
                "", _value_of("FINAL", () if value is missing else (value,), fields), evidence
            )

        def final_var(name: Any, evidence: Any = ()) -> None:
            """Finish with the value of the variable with this name."""
            self._take_variable(name, evidence)

        def submit(*values: Any, evidence: Any = (), **fields: Any) -> None:
            """Finish as FINAL does; several values become a list, several keyword arguments a
            dict.
            """
            if evidence and not values and not fields:
                fields, evidence = {"evidence": evidence}, ()
            self._take("", _value_of("SUBMIT", values, fields), evidence)

        present(final, "FINAL", "(value, evidence=())")
        present(final_var, "FINAL_VAR", "(name, evidence=())")
        present(submit, "SUBMIT", "(*values, evidence=(), **fields)")
        self.functions: dict[str, Any] = {"FINAL": final, "FINAL_VAR": final_var}
        self.dialects: dict[str, Any] = {"SUBMIT": submit, "final_answer": submit}

    def begin(self, *, names_literal: bool) -> None:
        """Discard the finals of the last block."""
        self._taken.clear()
        self.names_literal = names_literal

    def result(self) -> dict[str, Any] | None:
        """The answer, if any. `several` means that its value is a list of different answers."""
        if not self._taken:
            return self._result_of_answer()
        evidence = [each for _, _, given in self._taken for each in given]
        named = {name: value for name, value, _ in self._taken}
        if len(named) == 1 and ("" not in named or len(self._taken) == 1):
            return {"value": self._taken[-1][1], "evidence": self._taken[-1][2], "several": False}
        if "" not in named:
            return {"value": named, "evidence": evidence, "several": False}
        return {
            "value": [value for _, value, _ in self._taken],
            "evidence": evidence,
            "several": True,
        }

    def _take(self, name: str, value: Any, evidence: Any) -> None:
        value = self._opened(listed(value))
        if unfit := self._unfit(value):
            raise ValueError(
                f"{name or 'FINAL'}: there is no such variable: {unfit}. {self._known()}"
            )
        evidence = listed(evidence)
        given = (
            list(evidence)
            if isinstance(evidence, list | tuple | set)
            else []
            if evidence is None
            else [evidence]
        )
        if self._taken and self._taken[-1][0] == name and _is_same(self._taken[-1][1], value):
            self._taken.pop()
        self._taken.append((name, value, given))

    def _take_variable(self, name: Any, evidence: Any) -> None:
        if type(name) is not str:
            return self._take("", name, evidence)
        name = name.strip() if self.names_literal else name
        if name in self._namespace:
            if self._unfit(self._opened(self._namespace[name])):
                raise self._unknown(name)
            return self._take(name, self._namespace[name], evidence)
        if not self.names_literal:
            return self._take("", name, evidence)
        if (root := _ROOT.match(name)) and root[1] in self._namespace:
            # Evaluates the model's own expression, as its block would
            return self._take("", eval(name, self._namespace), evidence)  # noqa: S307
        if _NAME.fullmatch(name):
            raise self._unknown(name)
        return self._take("", name, evidence)  # words that cannot be the name of a variable

    def _opened(self, value: Any) -> Any:
        """The content of the `answer` dict; without content, it counts as unused."""
        if type(value) is not dict or value.keys() != {"content", "ready"}:
            return value
        return self.answer if value["content"] == "" else value["content"]

    def _unknown(self, name: str) -> NameError:
        return NameError(
            f"FINAL_VAR({name!r}): there is no such variable. {self._known()} For a string, "
            f"use FINAL({name!r})."
        )

    def _known(self) -> str:
        return f"Your variables: {', '.join(self._variables()) or 'none yet'}."

    def _unfit(self, value: Any) -> str:
        """A description of what makes a value invalid as an answer, such as a function of the REPL
        in it; "" if the value is valid.
        """
        left, rest = _WALKED, [value]
        while rest and left:
            left -= 1
            each = rest.pop()
            kind = type(each)
            if issubclass(kind, HostObject) or each is self.answer:
                return "that is a part of the REPL"
            for unfit, called in _NOT_VALUES:
                if issubclass(kind, unfit):
                    return f"that is {called}"
            if kind in {list, tuple, set, frozenset}:
                rest += each
            elif kind is dict:
                rest += each.values()
        return ""

    def _result_of_answer(self) -> dict[str, Any] | None:
        """The answer given with `answer["ready"] = True`; any other variable named `answer` belongs
        to the model.
        """
        try:
            answer = self._namespace.get("answer")
            if (
                type(answer) is dict
                and answer.keys() == {"content", "ready"}
                and answer["ready"] is True
            ):
                answer["ready"] = False  # once
                return (
                    None
                    if self._unfit(answer["content"])
                    else {"value": answer["content"], "evidence": [], "several": False}
                )
        except BaseException:  # noqa: BLE001, S110
            # Comparing keys of the model's classes may raise anything
            pass
        return None


def _value_of(function: str, values: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    """One value unchanged; several as a list; several fields as a dict, a single field as its
    value.
    """
    if bool(values) == bool(fields):
        raise TypeError(
            f"{function}() takes either values or named fields, such as {function}(value)"
        )
    if fields:
        return fields if len(fields) > 1 else next(iter(fields.values()))
    return list(values) if len(values) > 1 else values[0]


def _is_same(one: Any, other: Any) -> bool:
    try:
        return one is other or (type(one) is type(other) and bool(one == other))
    except Exception:  # noqa: BLE001 - comparing values of the model's classes may raise anything
        return False
