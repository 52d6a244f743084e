"""Streams yield the answer while it is written, and end with the same `Completion`."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from rlm_integrations.errors import ModelError
from rlm_integrations.lm.openai import OpenAILM
from tests.lm.conftest import request_of
from tests.standin import Fault, StandIn, answer_to


def model(server: StandIn, **options: Any) -> OpenAILM:
    return OpenAILM("sub", base_url=server.base_url, api_key="sk-0123456789", **options)


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
async def test_pieces_and_then_the_whole(server: StandIn, transport: Any) -> None:
    """The joined pieces are the text; the last item equals the result of `complete`, token counts
    included.
    """
    server.change(piece=3)
    lm = model(server, transport=transport)
    *pieces, last = [piece async for piece in lm.astream(request_of("x"))]
    assert len(pieces) > 5
    assert "".join(pieces) == answer_to("x")
    assert last == await lm.complete(request_of("x"))


async def test_pieces_come_as_they_are_written(server: StandIn) -> None:
    """The first piece arrives while the server still has to send the rest."""
    server.change(piece=4, piece_interval=0.1)
    async with aclosing(model(server).astream(request_of("x"))) as pieces:
        assert await anext(pieces) == answer_to("x")[:4]
        assert server.stats().in_flight == 1


async def test_leaving_early_aborts_the_stream(server: StandIn) -> None:
    """Closing a stream early closes its connection, and other calls continue."""
    server.change(piece=1, piece_interval=0.05)
    lm = model(server)
    async with aclosing(lm.astream(request_of("x"))) as pieces:
        await anext(pieces)
    async with asyncio.timeout(60):
        while not server.stats().aborted:
            await asyncio.sleep(0.002)
    server.change(piece_interval=0)
    assert [piece async for piece in lm.astream(request_of("x"))][-1].text == answer_to("x")


@pytest.mark.parametrize("fault", ["truncated", "cut"])
async def test_a_stream_that_breaks_off_is_an_error(server: StandIn, fault: Any) -> None:
    """A stream that breaks off yields its pieces but no `Completion`, and raises a retryable
    error.
    """
    server.change(faults=[Fault(fault)], piece=4)
    async with aclosing(model(server).astream(request_of("x"))) as pieces:
        assert await anext(pieces) == answer_to("x")[:4]
        with pytest.raises(ModelError) as caught:
            await anext(pieces)
    assert caught.value.retryable


async def test_a_server_that_does_not_stream(server: StandIn) -> None:
    """A plain reply to a streaming request is one piece and the completion."""
    server.change(faults=[Fault("no_stream")])
    lm = model(server)
    assert [piece async for piece in lm.astream(request_of("x"))] == [
        answer_to("x"),
        await lm.complete(request_of("x")),
    ]
