"""Three strategies for a long document, end to end over real HTTP, each with valid citations."""

import re

from rlm_integrations import RLM
from tests.engine.conftest import check_citations, code, models
from tests.standin import Ask, StandIn

LEDGER = "".join(
    f"Entry {number}: on day {number % 28 + 1} the mill {'paid' if number % 7 else 'received'} {number * 13 % 997} florins.\n"
    for number in range(20_000)
)


async def test_peek_grep_calculate(server: StandIn) -> None:
    """The root looks at the document, searches with `re`, computes in code and cites what it
    counted, without a sub-call.
    """
    server.change(
        scripts={
            "root": [
                code("print(type(context).__name__, len(context))", "print(context[:120])"),
                code(
                    "import re",
                    "hits = list(re.finditer(r'received (\\d+) florins', context))",
                    "total = sum(int(hit[1]) for hit in hits)",
                    "print(len(hits), total)",
                ),
                code(
                    "FINAL(total, evidence=[cite(context[hit.start() - 40 : hit.end()]) for hit in hits[1:4]])"
                ),
            ]
        }
    )
    (root,) = models(server.base_url, "root")
    result = await RLM(root).acompletion("How many florins were received in all?", LEDGER)
    assert result.answer == str(
        sum(int(found) for found in re.findall(r"received (\d+) florins", LEDGER))
    )
    assert (result.stop_reason, result.iterations, result.total_calls, len(result.citations)) == (
        "final",
        3,
        3,
        3,
    )
    check_citations(result, LEDGER)
    assert [call.model for call in server.calls()] == ["root"] * 3


def treaties(asked: Ask) -> str:
    """A sub-model that quotes the requested text word for word."""
    return "\n".join(re.findall(r"The treaty of \w+ was signed in \d+\.", asked.prompt)) or "NONE"


async def test_partition_map_reduce(server: StandIn) -> None:
    """The root splits the document, sends all parts in one batch, reduces the replies, and cites
    the quotes.
    """
    filler = "Of this year nothing else is told. " * 400
    names = ["Arras", "Bled", "Como", "Delft", "Enns", "Fulda"]
    document = "".join(
        f"{filler}The treaty of {name} was signed in {1500 + at}. {filler}"
        for at, name in enumerate(names)
    )
    server.change(
        latency=0.03,
        scripts={
            "root": [
                code(
                    "chunks = [context[at : at + 20_000] for at in range(0, len(context), 19_900)]",
                    "replies = llm_batch([f'Quote each sentence about a treaty, or say NONE.\\n\\n{chunk}' for chunk in chunks])",
                    "quotes = sorted({line for reply in replies if reply != 'NONE' for line in reply.splitlines()})",
                    "print(len(chunks), quotes)",
                ),
                code(
                    "answer_text = llm_query('Which came first?\\n' + '\\n'.join(quotes))",
                    "print(answer_text)",
                ),
                code(
                    "FINAL(answer_text.splitlines()[0], evidence=[cite(quote) for quote in quotes])"
                ),
            ],
            "sub": treaties,
        },
    )
    root, sub = models(server.base_url, "root", "sub")
    result = await RLM(root, sub, max_parallel_calls=8).acompletion(
        "Which treaty came first?", document
    )
    assert result.answer == "The treaty of Arras was signed in 1500."
    assert [citation.quote for citation in result.citations] == [
        f"The treaty of {name} was signed in {1500 + at}." for at, name in enumerate(names)
    ]
    check_citations(result, document)
    chunks = len(range(0, len(document), 19_900))
    assert (result.total_calls, server.stats().calls) == (chunks + 4, chunks + 4)
    assert server.stats().most_in_flight == 8
    (batch,) = result.repl_history[0].batch_calls
    assert (batch["prompts_count"], batch["model"]) == (chunks, "sub")
    assert result.spent.by_depth[0].calls == 3
    assert result.spent.by_depth[1].calls == chunks + 1


def summary(asked: Ask) -> str:
    """A sub-model whose summary of any text is the chapters in it, in order."""
    return "chapters " + " ".join(
        dict.fromkeys(re.findall(r"(?:CHAPTER |\b)(\d{1,2})\b", asked.prompt.partition("\n\n")[2]))
    )


async def test_hierarchical_summary(server: StandIn) -> None:
    """The root summarizes chapters concurrently, reduces the summaries level by level, and cites
    where each chapter begins.
    """
    chapters = [
        f"CHAPTER {number}\n{'It rained and nobody came. ' * 300}\n" for number in range(1, 17)
    ]
    document = "".join(chapters)
    server.change(
        scripts={
            "root": [
                code(
                    "parts = ['CHAPTER' + part for part in context.split('CHAPTER')[1:]]",
                    "levels = [llm_batch([f'Summarise.\\n\\n{part}' for part in parts])]",
                    "while len(levels[-1]) > 1:",
                    "    last = levels[-1]",
                    "    groups = [last[at : at + 4] for at in range(0, len(last), 4)]",
                    "    levels.append(parallel_query('Put together.\\n\\n{chunk}', ['\\n'.join(group) for group in groups]))",
                    "print([len(level) for level in levels])",
                ),
                code("FINAL(levels[-1][0], evidence=[cite(part[:40]) for part in parts])"),
            ],
            "sub": summary,
        }
    )
    root, sub = models(server.base_url, "root", "sub")
    result = await RLM(root, sub).acompletion("What happens in the book?", document)
    assert result.answer == "chapters " + " ".join(str(number) for number in range(1, 17))
    assert result.repl_history[0].stdout == "[16, 4, 1]\n"
    assert [batch["prompts_count"] for batch in result.repl_history[0].batch_calls] == [16, 4, 1]
    assert len(result.citations) == 16
    check_citations(result, document)
    assert [document[each.start :].partition("\n")[0] for each in result.citations] == [
        f"CHAPTER {at}" for at in range(1, 17)
    ]


MERGE = """\
I'll combine the results.
```python
all_themes = set()
for r in results:
    themes = r.split(", ")
    all_themes.update(themes)
final_answer = ", ".join(
    sorted(all_themes))
```

FINAL_VAR(final_answer)"""


async def test_the_first_guides_own_run(server: StandIn) -> None:
    """A look at the document, a recursive call for each chunk, and a merge that ends with
    `FINAL_VAR(final_answer)` in prose after a python block.
    """
    themes = ["AI ethics, automation", "machine learning", "neural networks, deep learning"]
    document = "".join(f"Chunk {at}. {'Filler. ' * 1_000}" for at in range(3))
    server.change(
        scripts={
            "root": [
                "I'll look first.\n```python\npeek = context[:500]\nprint(peek)\n```",
                "I'll partition and recurse.\n"
                + code(
                    "chunks = [context[i:i+8009] for i in range(0, len(context), 8009)]",
                    "results = []",
                    "for chunk in chunks:",
                    '    r = recursive_lm("What are the main themes?", chunk)',
                    "    results.append(r)",
                ),
                MERGE,
            ],
            "sub": lambda asked: themes[int(re.findall(r"Chunk (\d)", asked.prompt)[0])],
        }
    )
    root, sub = models(server.base_url, "root", "sub")
    result = await RLM(root, sub).acompletion("What are the main themes?", document)
    assert (
        result.answer == "AI ethics, automation, deep learning, machine learning, neural networks"
    )
    assert (result.stop_reason, result.iterations, result.total_calls) == ("final", 3, 6)


async def test_the_first_guides_strategy_without_imports(server: StandIn) -> None:
    """Peek, grep, calculate, as the guide writes it: `re` is available; the error of its third
    block is sent back and fixed.
    """
    server.change(
        scripts={
            "root": [
                code("peek = context[:1000]"),
                code(r"ratings = re.findall(r'Rating: (\d)/5', context)"),
                code("avg = sum(ratings) / len(ratings)"),
                code("avg = sum(map(int, ratings)) / len(ratings)")
                + '\nFINAL(f"Average rating: {avg}/5")',
            ]
        }
    )
    (root,) = models(server.base_url, "root")
    result = await RLM(root).acompletion(
        "What is the average?", "Rating: 5/5\nRating: 3/5\nRating: 1/5\n"
    )
    assert (result.answer, result.stop_reason) == ("Average rating: 3.0/5", "final")
    assert [execution.status for execution in result.repl_history] == [
        "ok",
        "ok",
        "error",
        "ok",
        "ok",
    ]
