"""Turns prompts into messages, and invalid prompts into the errors that take their place."""

import hashlib
from collections.abc import Iterable, Mapping
from reprlib import repr as shown  # bounded: values may be long
from typing import cast, get_args

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError, Message, Role

CHUNK = "{chunk}"
ROLES = get_args(Role)


def messages_of(prompt: object) -> tuple[Message, ...] | LLMError:
    """The messages of a prompt: a string, or a list of messages, which may be {"role": …,
    "content": …} dicts.

    An `LLMError`, such as a failed reply of an earlier batch, is returned as it is.
    """
    if isinstance(prompt, LLMError):
        return prompt
    if isinstance(prompt, str):
        return unicode_error(prompt) or (Message("user", prompt),)
    if not isinstance(prompt, list | tuple):
        return LLMError(
            "input", f"a prompt must be a string or a list of messages, not {shown(prompt)}"
        )
    if not prompt:
        return LLMError(
            "input", "a prompt must be a string or a list of messages; this list is empty"
        )
    messages = []
    for each in prompt:
        message = _message_of(each)
        if isinstance(message, LLMError):
            return message
        messages.append(message)
    return tuple(messages)


def digest_of_messages(messages: Iterable[Message]) -> bytes:
    """SHA-256 of a prompt: a short key that identical prompts share."""
    digest = hashlib.sha256()
    for message in messages:
        content = message.content.encode("utf-8", "surrogatepass")
        digest.update(b"%b %d " % (message.role.encode(), len(content)))
        digest.update(content)
    return digest.digest()


def checked_template(template: object) -> str:
    """The template, if it is a string with {chunk} in it.

    Raises:
        InputError: It is not.
    """
    if not isinstance(template, str) or CHUNK not in template:
        raise InputError(
            f"a template must be a string with {CHUNK} where each chunk goes, not {shown(template)}"
        )
    return template


def filled(template: str, chunk: object) -> tuple[Message, ...] | LLMError:
    """The template's messages for one chunk.

    Only the literal {chunk} is replaced, and nothing inside the chunk.
    """
    if isinstance(chunk, LLMError):
        return chunk
    if not isinstance(chunk, str):
        return LLMError("input", f"a chunk must be a string, not {shown(chunk)}")
    return messages_of(template.replace(CHUNK, chunk))


def _message_of(given: object) -> Message | LLMError:
    role: object
    content: object
    if isinstance(given, Message):
        role, content = given.role, given.content
    elif isinstance(given, Mapping) and given.keys() == {"role", "content"}:
        role, content = given["role"], given["content"]
    else:
        return LLMError(
            "input",
            f'a message must be a Message or {{"role": …, "content": …}}, not {shown(given)}',
        )
    if role not in ROLES:
        return LLMError("input", f"a message's role must be one of {ROLES}, not {shown(role)}")
    if not isinstance(content, str):
        return LLMError("input", f"a message's content must be a string, not {shown(content)}")
    return unicode_error(content) or Message(cast("Role", role), content)


def unicode_error(text: str) -> LLMError | None:
    """The error of a text that cannot be encoded, or None."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = (
                f"the prompt holds half of a surrogate pair ({text[error.start]!r} at "
                f"{error.start}), which is not valid text"
            )
            return LLMError(
                "input",
                (
                    f"{what}: read its source with the right encoding, or drop it with "
                    "errors='replace'"
                ),
            )
    return None
