"""Random runs whose coverage is compared with what the provider was sent.

`python -m tests.engine.coverage_runs [COUNT] [SEED]`, or `make coverage`, makes many.
"""

import asyncio
import random
import sys
from collections.abc import Iterable, Sequence

from rlm_integrations import RLM, OpenAILM, RLMResult
from rlm_integrations.coverage import Coverage
from tests.standin import StandIn, serve
from tests.standin.settings import Ask

_LEAST = 40  # characters: a shorter part of the document is not looked for
_MARK = "\u25a0"  # in no document, so that no part of a prompt is longer by chance


class Plan:
    """A document and what a root model and its children do with it, at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.texts = [self._words() for _ in range(self.random.randint(1, 4))]
        self.context = self.texts[0] if len(self.texts) == 1 else self.texts
        self.replies: dict[str, list[str]] = {}
        names = [f"context_{number}" for number in range(len(self.texts))]
        self.replies["root"] = self._turns("root", 2, names)

    def _words(self) -> str:
        draw = self.random
        return " ".join(
            "".join(
                draw.choices("abcdefghijklmnopqrstuvwxyz\u20ac\U0001f600", k=draw.randint(2, 9))
            )
            for _ in range(draw.randint(30, 400))
        )

    def _part(self, name: str) -> str:
        """An expression for a part of this variable, at least as long as is looked for."""
        start = self.random.randint(0, 3_000)
        length = self.random.randint(_LEAST, 900)
        return f"(lambda t, s: t[s:s + {length}])({name}, {start} % max(1, len({name}) - {_LEAST}))"

    def _turns(self, run: str, depth: int, names: Sequence[str]) -> list[str]:
        draw, blocks = self.random, []
        for turn in range(draw.randint(1, 3)):
            part = [self._part(draw.choice(names)) for _ in range(draw.randint(1, 4))]
            prompts = ", ".join(f"{_MARK!r} + {each} + {_MARK!r}" for each in part)
            kind = draw.choice(["batch", "query", "print", "child", "search"])
            if kind == "batch":
                blocks.append(f"llm_batch([{prompts}])")
            elif kind == "query":
                blocks.append(f"llm_query(''.join([{prompts}]))")
            elif kind == "print":
                blocks.append(f"print({prompts}, sep={_MARK!r})")
            elif kind == "child" and depth:
                child = f"{run}.{turn}"
                self.replies[child] = self._turns(child, depth - 1, ["context_0"])
                blocks.append(f"recursive_lm('{child}:', {part[0]})")
            else:
                blocks.append(f"len({part[0]})")
        blocks.append("FINAL('done')")
        return [f"```repl\n{block}\n```" for block in blocks]

    def reply(self, ask: Ask) -> str:
        """The reply to a root or a child: the next of its turns."""
        first = next(each["content"] for each in ask.body["messages"] if each["role"] == "user")
        run = first.removeprefix("Question: ").split(":", 1)[0]
        return self.replies[run][ask.turn]


def seen(texts: Sequence[str], prompt: str) -> set[tuple[int, int]]:
    """The characters of the document, as pairs of a source and an offset, that are in a prompt:
    every forty characters in a row that are in both.
    """
    runs = {prompt[at : at + _LEAST] for at in range(len(prompt) - _LEAST + 1)}
    return {
        (number, at + each)
        for number, text in enumerate(texts)
        for at in range(len(text) - _LEAST + 1)
        if text[at : at + _LEAST] in runs
        for each in range(_LEAST)
    }


def read(coverage: Coverage) -> set[tuple[int, int]]:
    """The characters that a coverage says were read."""
    return {
        (number, at)
        for number, source in enumerate(coverage.sources)
        for span in source.read
        for at in range(span.start, span.end)
    }


async def check(plan: Plan, server: StandIn) -> RLMResult:
    """Make the run of a plan, and compare its coverage with the prompts that the provider got: all
    together, and those of each call of code.
    """
    server.change(scripts={"root": plan.reply})
    before = len(server.requests())
    root, sub = (
        OpenAILM(name, base_url=server.base_url, api_key="a-key") for name in ("root", "sub")
    )
    rlm = RLM(root, sub, max_depth=3, require_coverage=0, sandbox="process")
    result = await rlm.acompletion("root: what is it?", plan.context)
    assert result.stop_reason == "final"
    bodies = [kept.body for kept in server.requests()[before:]]
    told = [
        (body["model"], each["content"])
        for body in bodies
        for each in body["messages"]
        if each["role"] == "user"
    ]
    everything: set[tuple[int, int]] = set()
    for _, text in set(told):
        everything |= seen(plan.texts, text)
    assert read(result.coverage) == everything
    asked = sorted(sorted(seen(plan.texts, text)) for model, text in told if model == "sub")
    calls = [each for each in result.coverage.readings if each.kind == "call"]
    noted = sorted(
        sorted(
            {
                (int(span.source.removeprefix("context_")), at)
                for span in each.spans
                for at in range(span.start, span.end)
            }
        )
        for each in calls
    )
    assert noted == [each for each in asked if each]
    assert RLMResult.from_dict(result.to_dict()).coverage == result.coverage
    return result


async def check_all(seeds: Iterable[int]) -> list[RLMResult]:
    """Check the runs of these seeds."""
    async with serve(keep_requests=True) as server:
        return [await check(Plan(seed), server) for seed in seeds]


def main() -> None:
    """Check many random runs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"{count} runs from seed {seed}")
    results = asyncio.run(check_all(range(seed, seed + count)))
    shares = sorted(result.coverage.share for result in results)
    print(f"coverage equals the prompts; read {shares[0]:.0%} to {shares[-1]:.0%} of the documents")


if __name__ == "__main__":
    main()
