"""The description of a host function."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the host that model code can call by its name.

    Attributes:
        name: Its name in the REPL; `store.create` makes an object `store` with a method.
        signature: Its parameters, as `help` shows them. The gate checks calls against them.
        doc: The text that `help` shows below the signature.
        aliases: Further names of the same function.
    """

    name: str
    signature: str = "(*args, **kwargs)"
    doc: str = ""
    aliases: tuple[str, ...] = ()
