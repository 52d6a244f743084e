"""Tens of thousands of prompts need no more memory than a thousand."""

from collections.abc import Iterator
from pathlib import Path

from rlm_integrations import allm_batch_iter
from rlm_integrations.records import Completion, Request

PAGE = 4096


class Quick:
    """A model that answers at once."""

    name = "quick"
    context_window = None

    async def complete(self, request: Request) -> Completion:
        return Completion("answer to " + request.messages[-1].content)


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def test_a_long_generator_runs_in_bounded_memory() -> None:
    """Memory stays bounded while 30,000 prompts of a kilobyte are pulled from a generator and
    answered.
    """

    def prompts() -> Iterator[str]:
        for number in range(30_000):
            yield f"{number} " + "x" * 1000

    early = late = seen = 0
    async for index, reply in allm_batch_iter(prompts(), Quick(), max_concurrent=20):
        assert reply.startswith(f"answer to {index} x")
        seen += 1
        if seen == 5_000:
            early = resident()
    late = resident()
    assert seen == 30_000
    assert late - early < 5_000_000
