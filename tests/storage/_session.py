"""A session of three questions, and a program that asks them."""

import json
import sys

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.storage import Storage
from tests.standin.settings import Ask
from tests.storage._runs import code

DOCUMENT = "The dam was approved in 1952. It cost 4 million lire."
SCRIPTS = {
    "First?": [code("kept = llm_batch(['one', 'two'])"), code("FINAL(kept)")],
    "Second?": [code("kept.append(llm_query('three'))", "FINAL(len(kept))")],
    "Third?": [
        code("more = [llm_query('four')]"),
        code("more.append(llm_query('the last one'))", "FINAL([*kept, *more])"),
    ],
    "Fourth?": [code("FINAL([len(kept), len(more)])")],
}


def script_of(ask: Ask) -> str:
    """What the server says: as root the next reply to the latest question, else the prompt."""
    messages = ask.body["messages"]
    if messages[0]["role"] != "system":
        return f"re: {ask.prompt}"
    asked = [
        (number, question)
        for number, message in enumerate(messages)
        for question in SCRIPTS
        if message["role"] == "user" and f"Question: {question}" in message["content"]
    ]
    at, question = asked[-1]
    return SCRIPTS[question][sum(each["role"] == "assistant" for each in messages[at:])]


def rlm_of(base_url: str, storage: Storage) -> RLM[str]:
    """The RLM of the session."""
    return RLM(OpenAILM("stand-in", base_url=base_url, api_key="none"), storage=storage)


def main() -> None:
    """Ask the first three questions."""
    base_url, folder = sys.argv[1:]
    with Storage(folder) as storage, rlm_of(base_url, storage).session(DOCUMENT) as chat:
        for question in list(SCRIPTS)[:3]:
            print(json.dumps(chat.completion(question).answer), flush=True)


if __name__ == "__main__":
    main()
