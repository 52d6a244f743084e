"""The cache: what a run or batch paid for is free in the next one, and never a wrong answer."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from sqlalchemy import func, select, update

from rlm_integrations import (
    RLM,
    Budget,
    Completion,
    InputError,
    LLMError,
    OpenAILM,
    Request,
    RLMResult,
    StorageError,
    Usage,
    allm_batch,
    allm_batch_records,
    llm_batch,
    llm_batch_records,
)
from rlm_integrations.engine.answer_codec import decode_answer
from rlm_integrations.engine.model_calls import ModelAnswer
from rlm_integrations.events import CallCached, CallStarted, Event
from rlm_integrations.lm.resolve import resolve
from rlm_integrations.storage import Storage
from tests.lm._local import Local
from tests.standin import StandIn, serve_in_thread
from tests.storage import _runs
from tests.storage._runs import DOCUMENT, QUESTION, SUB_CALLS, facts


@dataclass
class Named(Local):
    """A model that counts its replies, and says what they depend on."""

    identity: str = "a"

    def cache_identity(self, request: Request) -> object:
        return self.identity

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        return replace(completion, text=f"{completion.text} #{len(self.requests)}")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage(tmp_path / "runs") as opened:
        yield opened


def count(storage: Storage) -> int:
    """How many replies are kept."""
    table = storage._replies._table
    query = select(func.count()).select_from(table)
    return storage._shared.database.read(lambda connection: connection.scalar(query) or 0)


def damage(storage: Storage, **values: Any) -> None:
    """Change all rows of the cache."""
    statement = update(storage._replies._table).values(**values)
    storage._shared.writer.submit(lambda connection: connection.execute(statement)).result()


@pytest.fixture
def provider() -> Iterator[StandIn]:
    with serve_in_thread(scripts={"stand-in": _runs.script_of}) as standin:
        yield standin


def rlm_of(provider: StandIn, storage: Any, **options: Any) -> RLM[Any]:
    lm = OpenAILM("stand-in", base_url=provider.base_url, api_key="none")
    return RLM(lm, max_depth=2, tools=[_runs.lookup], storage=storage, **options)


async def test_the_same_run_again_is_free(url: str, tmp_path: Path, provider: StandIn) -> None:
    """A later run on the same tables makes no call, gives the same in everything, and shows what
    was saved: in its cost, in each record, and in its events.
    """
    events: list[Event] = []
    with Storage(url, lake=tmp_path / "lake") as storage:
        first = await rlm_of(provider, storage, cache=True).acompletion(QUESTION, DOCUMENT)
        asked = len(provider.calls())
        again_by = rlm_of(provider, storage, cache=True, on_event=events.append)
        again = await again_by.acompletion(QUESTION, DOCUMENT)
    assert len(provider.calls()) == asked == first.total_calls
    assert facts(again)[:-1] == facts(first)[:-1]
    assert (again.total_calls, again.spent.total.cached, again.spent.cached) == (0, asked, asked)
    assert first.spent.total.cached == 0
    assert again.spent.total.usage == Usage()
    assert again.cost == 0.0
    assert sum(isinstance(event, CallCached) for event in events) == asked
    assert not any(isinstance(event, CallStarted) for event in events)
    for before, after in zip(first.trajectory, again.trajectory, strict=True):
        assert (after.usage, after.saved, before.saved) == (Usage(), before.usage, None)
    loaded = RLMResult.from_dict(json.loads(json.dumps(again.to_dict())))
    assert loaded.spent == again.spent


def test_a_hit_needs_no_budget(storage: Storage, provider: StandIn) -> None:
    """With two hundred hits, a run ends within a budget of a few calls. That each reply is bounded
    then does not change what it is kept under; only turns differ, which are told of the budget.
    """
    first = rlm_of(provider, storage, cache=True).completion(QUESTION, DOCUMENT)
    budget = Budget(max_calls=30, max_tokens=1_000_000)
    again = rlm_of(provider, storage, cache=True, budget=budget).completion(QUESTION, DOCUMENT)
    assert (again.answer, again.stop_reason) == (first.answer, "final")
    assert again.spent.cached == SUB_CALLS
    assert again.total_calls == first.total_calls - SUB_CALLS < 30


async def test_cached_answers_are_journalled(storage: Storage, provider: StandIn) -> None:
    """A run that was cancelled among its hits goes on from its own record, although the cache is
    empty then, and counts its hits as such.
    """
    rlm = rlm_of(provider, storage, cache=True)
    first = await rlm.acompletion(QUESTION, DOCUMENT)
    asked = len(provider.calls())
    hits = 0
    half = asyncio.Event()

    def look(event: Event) -> None:
        nonlocal hits
        hits += isinstance(event, CallCached)
        if hits == 100:
            half.set()

    task = asyncio.ensure_future(rlm.replace(on_event=look).acompletion(QUESTION, DOCUMENT))
    await half.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    storage.clear_cache()
    (cancelled,) = storage.runs(status="cancelled")
    answers = [decode_answer(each.body)[1].value for each in storage.load(cancelled.run_id)]
    journalled = sum(isinstance(a, ModelAnswer) and a.record.saved is not None for a in answers)
    result = await rlm.aresume(cancelled.run_id)
    assert facts(result)[:-1] == facts(first)[:-1]
    assert journalled >= 90
    assert result.spent.cached == journalled
    assert len(provider.calls()) - asked == result.total_calls == first.total_calls - journalled


def test_without_cache_nothing_is_kept(storage: Storage, provider: StandIn) -> None:
    """A storage alone caches nothing, neither for runs nor for batches."""
    rlm_of(provider, storage).completion(QUESTION, DOCUMENT)
    assert llm_batch(["x"], Named()) == ["re: x #1"]
    assert count(storage) == 0


def test_a_batch_reuses_replies(storage: Storage) -> None:
    """The records of hits have the tokens that were saved, and no tokens and no cost; only new
    prompts are sent.
    """
    lm = Named()
    (first,) = llm_batch_records(["x"], lm, cache=storage)
    assert (first.usage, first.saved) == (Usage(3, 2), None)
    assert first.cost is not None
    assert first.cost > 0
    seen: list[Event] = []
    again, new = llm_batch_records(["x", "y"], lm, cache=storage, on_event=seen.append)
    assert (again.reply, again.reply.finish_reason, again.model) == (  # type: ignore[attr-defined]
        "re: x #1",
        "stop",
        "gpt-4o-mini",
    )
    assert (again.usage, again.saved, again.cost) == (Usage(), Usage(3, 2), 0.0)
    assert (new.reply, len(lm.requests)) == ("re: y #2", 2)
    (hit,) = (event for event in seen if isinstance(event, CallCached))
    assert (hit.request.path, hit.record) == ("b.0", replace(again, cost=0.0))


def test_equal_prompts_of_one_batch_stay_calls_of_their_own(storage: Storage) -> None:
    """Votes are not answered from each other: the cache has a reply for each of them, in order."""
    lm = Named()
    votes = llm_batch(["vote"] * 3, lm, cache=storage, max_concurrent=1)
    assert votes == ["re: vote #1", "re: vote #2", "re: vote #3"]
    again = llm_batch(["vote"] * 4, lm, cache=storage, max_concurrent=1)
    assert again == [*votes, "re: vote #4"]


def test_the_model_the_messages_and_the_parameters_count(storage: Storage) -> None:
    """A reply is kept under all that can change it, and under nothing else."""
    lm = Named()
    message = {"role": "user", "content": "x"}
    asks: list[tuple[Any, Any, Any]] = [
        (lm, "x", None),
        (lm, "x ", None),
        (lm, [{**message, "role": "system"}], None),
        (lm, [message, message], None),
        (lm, "x", {"temperature": 0}),
        (lm, "x", {"temperature": 1}),
        (lm, "x", {"max_completion_tokens": 1}),
        (lm, "x", {"seed": 1, "temperature": 0}),
        (lm, "x", {"response_format": {"type": "json_object"}}),
        (Named(identity="b"), "x", None),
    ]
    first = [llm_batch([ask], model, params=params, cache=storage) for model, ask, params in asks]
    assert count(storage) == len(asks)
    asked = len(lm.requests)
    same: list[tuple[Any, Any, Any]] = [
        (lm, [message], {}),
        (lm, "x", {"temperature": 0, "seed": 1}),
        (Named(name="renamed"), "x", None),  # what it says of itself counts
    ]
    again = [llm_batch([ask], model, params=params, cache=storage) for model, ask, params in same]
    assert again == [first[0], first[7], first[0]]
    assert len(lm.requests) == asked


def test_servers_of_one_model_name_do_not_share(storage: Storage, provider: StandIn) -> None:
    """An address and an own parameter are part of a model; its key is not, and is nowhere."""
    with serve_in_thread() as other:
        for base_url in (provider.base_url, other.base_url):
            for params in ({}, {"temperature": 0}):
                lm = OpenAILM("m", base_url=base_url, api_key="sk-sesame", params=params)
                llm_batch(["x"], lm, cache=storage)
        assert (len(provider.calls()), len(other.calls()), count(storage)) == (2, 2, 4)
    lm = OpenAILM("m", base_url=provider.base_url, api_key="sk-other")
    llm_batch(["x"], lm, cache=storage)
    assert len(provider.calls()) == 2
    assert "sesame" not in json.dumps(lm.cache_identity(Request(())))


def test_failed_and_truncated_replies_are_not_kept(storage: Storage) -> None:
    """They are asked for again."""

    def act(prompt: str) -> Any:
        if prompt == "fail":
            raise KeyError(prompt)
        return Completion("cut", Usage(3, 2), "m", "length")

    lm = Local(act=act)
    lm.cache_identity = lambda _: "a"  # type: ignore[attr-defined]
    for _ in range(2):
        failed, cut = llm_batch(["fail", "cut"], lm, cache=storage)
        assert (type(failed), cut) == (LLMError, "cut")
    assert (len(lm.requests), count(storage)) == (4, 0)


def test_a_damaged_reply_is_asked_for_again(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as missing, with a warning, and is replaced."""
    lm = Named()
    llm_batch(["x"], lm, cache=storage)
    damage(storage, body=b"s\x00\x00\x00\x00not what was written")
    with caplog.at_level(logging.WARNING):
        assert llm_batch(["x"], lm, cache=storage) == ["re: x #2"]
    assert "the model is asked" in caplog.text
    assert llm_batch(["x"], lm, cache=storage) == ["re: x #2"]


def test_a_reply_of_another_key_is_not_used(storage: Storage) -> None:
    """A whole body in the wrong row is damage, too: a reply names its key."""
    lm = Named()
    llm_batch(["x"], lm, cache=storage)
    table = storage._replies._table
    body = storage._shared.database.read(lambda each: each.scalar(select(table.c.body)))
    llm_batch(["y"], lm, cache=storage)
    damage(storage, body=body)
    assert llm_batch(["y"], lm, cache=storage) == ["re: y #3"]


async def test_lookups_that_come_together_are_one_query(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled one does not end the others; an error reaches each of them."""
    prompts = [str(number) for number in range(50)]
    lm = Named()
    first = await allm_batch(prompts, lm, cache=storage, max_concurrent=50)
    read, groups = storage._replies._find_all, []

    def count_keys(keys: Sequence[str]) -> dict[str, Completion]:
        groups.append(len(keys))
        return read(keys)

    monkeypatch.setattr(storage._replies, "_find_all", count_keys)
    storage._replies._lookups.clear()
    again = asyncio.create_task(allm_batch(prompts, lm, cache=storage, max_concurrent=50))
    cancelled = asyncio.create_task(storage.find_reply("x"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await again == first
    assert sum(groups) in {50, 51}
    assert len(groups) <= 5
    monkeypatch.setattr(storage._shared.database, "read", _raise)
    failed = await asyncio.gather(*map(storage.find_reply, "abc"), return_exceptions=True)
    assert [str(each) for each in failed] == ["gone"] * 3


def _raise(*_: object) -> None:
    raise StorageError("gone")


async def test_a_storage_that_fails_loses_no_reply(
    storage: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was paid for is delivered, uncached, and the warning comes once."""

    async def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(storage._replies, "keep", fail)
    records = await allm_batch_records(list("xyz"), Named(), cache=storage, max_concurrent=1)
    assert [record.reply for record in records] == ["re: x #1", "re: y #2", "re: z #3"]
    assert caplog.text.count("the disk is full") == 1


def test_what_cannot_be_cached_is_refused(storage: Storage) -> None:
    """Before any call: a cache without a storage, models that do not say what they are, parameters
    without a plain form.
    """
    lm = Local()
    with pytest.raises(InputError, match="cache=True needs a storage"):
        RLM("offline", cache=True)
    with pytest.raises(InputError, match="'local' cannot be cached: Local has no method cache_id"):
        RLM("offline", lm, cache=True, storage=storage)
    with pytest.raises(InputError, match="choose True or False"):
        RLM("offline", cache=storage, storage=storage)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="Local has no method cache_identity"):
        llm_batch(["x"], lm, cache=storage)
    with pytest.raises(InputError, match="cache must be a Storage or None, not True"):
        llm_batch(["x"], Named(), cache=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'local' cannot be cached.*not JSON serializable"):
        llm_batch(["x"], Named(), cache=storage, params={"tools": [object()]})
    chain = ChatOpenAI(model="m", api_key="none") | RunnableLambda(lambda x: x)
    with pytest.raises(InputError, match="last is a RunnableLambda, and it cannot be told"):
        llm_batch(["x"], chain, cache=storage)
    assert lm.requests == []


def identity(model: Any) -> str:
    return json.dumps(resolve(model).cache_identity(Request(())))  # type: ignore[attr-defined]


def langchain(url: str = "http://a/v1", key: str = "sk-sesame", **options: Any) -> Any:
    return ChatOpenAI(model="m", base_url=url, api_key=key, **options)


def llama_index(url: str = "http://a/v1", key: str = "sk-sesame", **options: Any) -> Any:
    openai_like = pytest.importorskip("llama_index.llms.openai_like")
    return openai_like.OpenAILike(model="m", api_base=url, api_key=key, **options)


@pytest.mark.parametrize("make", [langchain, llama_index])
def test_models_of_frameworks_say_what_they_are(make: Callable[..., Any]) -> None:
    """By class, settings and address, without what is different in another process and without the
    key: another model for everything that changes a reply.
    """
    plain = identity(make())
    assert plain == identity(make()) == identity(make(key="sk-other"))
    assert "sesame" not in plain
    assert "0x" not in plain
    others = [make(url="http://b/v1"), make(temperature=0.5), make(max_tokens=5)]
    assert len({plain, *map(identity, others)}) == 4


def test_bound_arguments_and_environments_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments that are bound to a model count, and an address that only its client knows;
    callbacks do not.
    """
    plain = ChatOpenAI(model="m", api_key="none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    elsewhere = ChatOpenAI(model="m", api_key="none")
    models = [plain, elsewhere, plain.bind(stop=["a"]), plain.bind(stop=["b"])]
    assert len({identity(model) for model in models}) == 4
    traced = plain.with_config(callbacks=[BaseCallbackHandler()])
    assert identity(traced) == identity(plain.with_config())


def test_the_cache_is_cleared_by_age(storage: Storage) -> None:
    """All of it, or what is older than a time; runs and blobs stay."""
    lm = Named()
    llm_batch(["x", "y"], lm, cache=storage)
    assert storage.clear_cache(timedelta(hours=1)) == 0
    damage(storage, kept_at=0.0)
    llm_batch(["z"], lm, cache=storage)
    assert storage.clear_cache(timedelta(hours=1)) == 2
    assert (storage.clear_cache(), count(storage)) == (1, 0)
