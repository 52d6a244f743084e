"""What users write as prompts, as messages; what cannot be sent, as the error that takes its place."""

from collections.abc import Mapping
from reprlib import repr as shown  # bounded: values may be long
from typing import cast, get_args

from rlm_integrations.errors import InputError
from rlm_integrations.records import LLMError, Message, Role

CHUNK = "{chunk}"
ROLES = get_args(Role)


def messages_of(prompt: object) -> tuple[Message, ...] | LLMError:
    """The conversation that a prompt means: a text, or a list of messages, which may be {"role": …,
    "content": …} dicts.

    An `LLMError`, such as the failed reply of an earlier batch, stays what it is.
    """
    if isinstance(prompt, LLMError):
        return prompt
    if isinstance(prompt, str):
        return _sendable(prompt) or (Message("user", prompt),)
    if not isinstance(prompt, list | tuple):
        return LLMError("input", f"a prompt is a text or a list of messages, not {shown(prompt)}")
    if not prompt:
        return LLMError("input", "a prompt is a text or a list of messages; this list is empty")
    messages = []
    for each in prompt:
        message = _message_of(each)
        if isinstance(message, LLMError):
            return message
        messages.append(message)
    return tuple(messages)


def checked_template(template: object) -> str:
    """The template, which names where a chunk goes.

    Raises:
        InputError: It does not.
    """
    if not isinstance(template, str) or CHUNK not in template:
        raise InputError(
            f"a template is a text that holds {CHUNK} where each chunk goes, not {shown(template)}"
        )
    return template


def filled(template: str, chunk: object) -> tuple[Message, ...] | LLMError:
    """The template's conversation for one chunk.

    Nothing but the literal {chunk} is replaced, and nothing inside the chunk.
    """
    if isinstance(chunk, LLMError):
        return chunk
    if not isinstance(chunk, str):
        return LLMError("input", f"a chunk is a text, not {shown(chunk)}")
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
            "input", f'a message is a Message or {{"role": …, "content": …}}, not {shown(given)}'
        )
    if role not in ROLES:
        return LLMError("input", f"a message's role is one of {ROLES}, not {shown(role)}")
    if not isinstance(content, str):
        return LLMError("input", f"a message's content is a text, not {shown(content)}")
    return _sendable(content) or Message(cast("Role", role), content)


def _sendable(text: str) -> LLMError | None:
    """Why the text cannot be sent, if so."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"the prompt holds half of a surrogate pair ({text[error.start]!r} at {error.start}), which is no text"
            return LLMError(
                "input",
                f"{what}: read its source with the right encoding, or drop it with errors='replace'",
            )
    return None
