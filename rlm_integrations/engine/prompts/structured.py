"""What a root is told that answers in a JSON schema."""

import json

from rlm_integrations.engine.parsing.structured import object_in
from rlm_integrations.engine.prompts.remarks import compacted_reply

STRUCTURED = """\
Answer with one JSON object and nothing else; what its code printed comes in the next message. Its \
fields:
- `reasoning`: what you think, in a few words.
- `code`: the Python that runs next, without fences; null if you finish.
- `final`: the answer, once you know it; null before. To finish with evidence or a variable, call \
FINAL in `code`.

{"reasoning": "I look at the beginning.", "code": "print(type(context), len(context))\\nprint(\
context[:1000])", "final": null}

The blocks below show what `code` may hold."""
FINISH_IN_FIELD = (
    "in `final`, or by `code` that only calls FINAL(value, evidence=[…]) or FINAL_VAR(name)"
)
NO_CODE = (
    "Your reply had neither code nor a final answer. Put Python into `code`, or the answer into "
    "`final`."
)


def shorten_fields(text: str, kept: int) -> str:
    """What the history still holds of an old reply: an object again, with shortened fields."""
    if len(text) <= kept:
        return text
    fields = object_in(text)
    if fields is None:
        return compacted_reply(text, kept)
    shorter = {
        name: compacted_reply(value, kept // 2) if isinstance(value, str) else value
        for name, value in fields.items()
        if name in {"reasoning", "code", "final"}
    }
    return json.dumps(shorter, ensure_ascii=False)
