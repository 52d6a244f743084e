"""Text in a reply that is not part of it: chat tokens, thoughts, and invented turns."""

import re
from typing import Final

CHAT_TOKEN: Final = re.compile(
    r"(?<![`\"'])"
    r"(?:<\|[a-z_]{2,30}\|>|<\uff5c[^\uff5c\n]{2,30}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\])"
)
OPENING_TOKENS: Final = re.compile(
    r"(?:\s*(?:<\|[a-z_]{2,30}\|>|<start_of_turn>)[ \t]*(?:(?:assistant|model)\b)?)+"
)
_END_OF_THOUGHT: Final = re.compile(r"</think(?:ing)?>")
_END_OF_THOUGHT_LINE: Final = re.compile(r"</think(?:ing)?>[ \t\r]*(?:\n|\Z)")
# A heading under which models invent output or the user's words
INVENTED: Final = re.compile(
    r"""^[^\w\n]{0,6}
    (?: (?:(?:the|code|console|execution|program|repl|actual)\ )*(?:output|stdout|observation)s?
        (?:\ (?:is|was|\d+|\([^\n)]{0,40}\)|(?:of|from|for)\b[^\n:]{0,40}))?
    | (?:code|execution|repl)\ (?:executed|response|results?|returned|says)
    | (?:human|user)(?=:)
    ) [\]*_\ \t]* (?::|\r?$)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


def start_of_reply(text: str) -> int:
    """The offset after leaked tokens at the start of a reply, and after the model's thoughts."""
    start = match.end() if (match := OPENING_TOKENS.match(text)) else 0
    if text[start : start + 200].lstrip().startswith(("<think>", "<thinking>")):
        closing = _END_OF_THOUGHT.search(text, start)
    else:
        # Some servers remove the opening tag.
        closing = _END_OF_THOUGHT_LINE.search(text, start)
    return closing.end() if closing else start
