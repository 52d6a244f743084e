"""A workflow that saves its context, and a program that begins it or lets it go on."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from llama_index.core import Document
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.llama_index import RLMQueryEngine
from rlm_integrations.storage import Storage
from tests.engine.conftest import code

TEXT = "The Ravenna dam was approved by Ada Conti."
QUESTION = "Who approved the dam?"
PROGRAM = [
    code("parts = llm_batch([f'part {number}' for number in range(3)])"),
    code("last = llm_query('the last one')"),
    code("FINAL(f'{len(parts)} parts, {last}')"),
]


class Ask(Event):
    """A question."""

    question: str


class Answer(Event):
    """Its answer, and the run that gave it."""

    text: str
    run_id: str


class Asking(Workflow):
    """Asks the same question twice, at the same time."""

    def __init__(self, engine: RLMQueryEngine) -> None:
        super().__init__(timeout=250)
        self.engine = engine

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Ask | None:
        """Ask twice."""
        for _ in range(2):
            ctx.send_event(Ask(question=ev.question))

    @step(num_workers=2)
    async def ask(self, ctx: Context, ev: Ask) -> Answer:
        """Answer a question."""
        response: Any = await self.engine.in_workflow(ctx).aquery(ev.question)
        return Answer(text=str(response), run_id=response.metadata["run_id"])

    @step
    async def end(self, ctx: Context, ev: Answer) -> StopEvent | None:
        """Both answers."""
        answers = ctx.collect_events(ev, [Answer] * 2)
        if answers is None:
            return None
        return StopEvent(result=[[answer.text, answer.run_id] for answer in answers])


def engine(base_url: str, storage: Storage) -> RLMQueryEngine:
    """The engine of all workflows here."""
    root, sub = (OpenAILM(name, base_url=base_url, api_key="none") for name in ("root", "sub"))
    return RLMQueryEngine.from_rlm(RLM(root, sub, storage=storage), Document(text=TEXT))


async def run(base_url: str, folder: Path) -> list[list[str]]:
    """The answers. The context is saved at each event, and a saved one is gone on with."""
    saved = folder / "context.json"
    with Storage(folder / "runs") as storage:
        workflow = Asking(engine(base_url, storage))
        if saved.exists():
            handler = workflow.run(ctx=Context.from_dict(workflow, json.loads(saved.read_text())))
        else:
            handler = workflow.run(question=QUESTION)
        async for _ in handler.stream_events():
            new = saved.with_suffix(".new")
            new.write_text(json.dumps(handler.ctx.to_dict()))
            new.replace(saved)
        answers: list[list[str]] = await handler
        return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], Path(sys.argv[2])))))
