"""Text searches without an index, instead of `fulltext.FullText` if SQLite has no FTS5."""

import math
import re
from collections.abc import Sequence

from rlm_integrations._concurrency.work import spend
from rlm_integrations.store.log import Created
from rlm_integrations.store.text import Skip, searchable_text, words

_TOKEN = re.compile(r"[^\W_]+")
K1, B = 1.2, 0.75  # the values of FTS5


class Scan:
    """A `TextIndex` that reads every object at each search."""

    def rank(
        self, rows: Sequence[Created], text: str, limit: int, skip: Skip
    ) -> list[tuple[int, float]]:
        """As `TextIndex` says."""
        end = len(rows)
        documents = [_TOKEN.findall(searchable_text(rows[row])) for row in range(end)]
        mean = sum(map(len, documents)) / end if end else 0
        # Two spaces between tokens, so that neighbours do not share one.
        joined = [f" {'  '.join(tokens)} " for tokens in documents]
        scores: dict[int, float] = {}
        for word in words(text):
            needle = f" {'  '.join(_TOKEN.findall(word))} "
            spend(sum(map(len, joined)))
            counts = {
                row: count for row, tokens in enumerate(joined) if (count := tokens.count(needle))
            }
            weight = max(math.log((end - len(counts) + 0.5) / (len(counts) + 0.5)), 1e-6)
            for row, count in counts.items():
                part = count * (K1 + 1) / (count + K1 * (1 - B + B * len(documents[row]) / mean))
                scores[row] = scores.get(row, 0) + weight * part
        best = sorted(
            (item for item in scores.items() if not skip(item[0])),
            key=lambda item: (-item[1], -item[0]),
        )
        return best[:limit]

    def holding(
        self, rows: Sequence[Created], field: str, needles: Sequence[str], *, newest_first: bool
    ) -> None:
        """None: reading all rows is the only way here."""
