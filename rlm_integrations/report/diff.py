"""The comparison of two runs."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from rlm_integrations._files import write_whole
from rlm_integrations._json import to_plain
from rlm_integrations.engine.show import counted
from rlm_integrations.report.align import PlaceDiff, align, settings_of
from rlm_integrations.report.page import diff_page
from rlm_integrations.spending import Spent

if TYPE_CHECKING:
    from rlm_integrations.result import RLMResult

_SHOWN_PLACES: Final = 30  # in `print(diff)`
_SHOWN_LINES: Final = 40  # of the two answers
_SHOWN_CHARS: Final = 100  # of one line


@dataclass(frozen=True)
class RunDiff:
    """Two runs side by side; `result.diff(other)` makes it. `print(diff)` shows it in short.

    Attributes:
        one: The first run.
        other: The second run.
    """

    one: "RLMResult"
    other: "RLMResult"

    @cached_property
    def settings(self) -> Mapping[str, tuple[str | None, str | None]]:
        """The settings that differ: question, documents, models, options and library version. A
        value is None if one run does not have it.
        """
        return _differing(_settings(self.one), _settings(self.other))

    @cached_property
    def totals(self) -> Mapping[str, tuple[str, str]]:
        """What both runs took, and how they ended."""
        first, second = _totals(self.one), _totals(self.other)
        return {name: (value, second[name]) for name, value in first.items()}

    @cached_property
    def spent(self) -> Mapping[str, tuple[str, str]]:
        """Tokens and cost of both runs by model and by depth, such as "model sub" and "depth 1"."""
        first, second = _spent(self.one), _spent(self.other)
        return {
            name: (first.get(name, "no calls"), second.get(name, "no calls"))
            for name in dict.fromkeys([*first, *second])
        }

    @cached_property
    def places(self) -> tuple[PlaceDiff, ...]:
        """Every turn, block and call of both runs, aligned by its place in the tree."""
        return tuple(align(self.one.trajectory, self.other.trajectory))

    @property
    def is_same(self) -> bool:
        """Whether settings, answers and everything in the trees are equal; times may differ."""
        same_answers = _text(self.one.answer) == _text(self.other.answer)
        return same_answers and not self.settings and all(each.is_same for each in self.places)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for name, (first, second) in self.totals.items():
            yield f"{name:<12} {first:>16} {second:>16}"
        for name, (first, second) in self.spent.items():
            if first != second:
                yield f"{name}: {first} → {second}"
        for name, values in self.settings.items():
            first, second = (_short(each) for each in values)
            yield f"setting {name}: {first} → {second}"
        answers = _text(self.one.answer).splitlines(), _text(self.other.answer).splitlines()
        if answers[0] == answers[1]:
            yield "the answers are the same"
        else:
            compared = list(difflib.unified_diff(*answers, "answer", "answer", lineterm="", n=1))
            yield from (_cut(line) for line in compared[:_SHOWN_LINES])
        differing = [each for each in self.places if not each.is_same]
        yield f"{len(self.places) - len(differing):,} of {len(self.places):,} places are the same"
        for each in differing[:_SHOWN_PLACES]:
            yield f"{each.place}: {_said(each)}"
        if len(differing) > _SHOWN_PLACES:
            yield f"… and {len(differing) - _SHOWN_PLACES:,} more"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON: `runs` (the two ids), `same`, `settings`, `totals`,
        `spent`, `answers`, and `places` with `place`, `level`, `changed`, `one` and `other`.
        """
        return {
            "runs": [self.one.run_id, self.other.run_id],
            "same": self.is_same,
            "settings": to_plain(self.settings),
            "totals": to_plain(self.totals),
            "spent": to_plain(self.spent),
            "answers": [_text(self.one.answer), _text(self.other.answer)],
            "places": [
                {
                    "place": each.place,
                    "level": each.level,
                    "changed": list(each.changed),
                    "one": None if each.one is None else dict(each.one),
                    "other": None if each.other is None else dict(each.other),
                }
                for each in self.places
            ],
        }

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """The comparison as a page of HTML, which needs no network and no other file.

        Args:
            path: The file to write the page to, if any.

        Raises:
            OSError: The file cannot be written.
        """
        questions = [self.one.question, self.other.question]
        page = diff_page({**self.to_dict(), "questions": questions})
        if path is not None:
            write_whole(path, [page], encoding="utf-8")
        return page


def _settings(run: "RLMResult") -> dict[str, str]:
    documents = {
        source.name: f"{source.length:,} characters, SHA-256 {source.sha256[:12]}"
        for source in run.sources
    }
    return settings_of(
        [
            ("question", run.question),
            ("root model", run.models.root),
            ("sub-models", run.models.subs),
            ("document", documents),
            *run.options.items(),
            ("version", run.version),
        ]
    )


def _differing(
    one: Mapping[str, str], other: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    names = dict.fromkeys([*one, *other])
    return {
        name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    }


def _totals(run: "RLMResult") -> dict[str, str]:
    total = run.spent.total
    return {
        "run": run.run_id[:16],
        "end": run.stop_reason,
        "turns": f"{run.iterations:,}",
        "model calls": f"{run.total_calls:,}",
        "from cache": f"{total.cached:,}",
        "tokens": _tokens(total),
        "cost": _dollars(total.cost),
        "wall time": f"{run.elapsed:,.2f} s",
        "citations": f"{len(run.citations):,}",
    }


def _spent(run: "RLMResult") -> dict[str, str]:
    by_model = {f"model {name}": spent for name, spent in run.spent.by_model.items()}
    by_depth = {f"depth {depth}": run.spent.by_depth[depth] for depth in sorted(run.spent.by_depth)}
    return {
        name: f"{counted(spent.calls, 'call')}, {_tokens(spent)} tokens, cost {_dollars(spent.cost)}"
        for name, spent in (by_model | by_depth).items()
    }


def _tokens(spent: Spent) -> str:
    tokens = f"{spent.usage.input_tokens + spent.usage.output_tokens:,}"
    if not spent.uncounted:
        return tokens
    return f"{tokens} + unknown" if spent.uncounted < spent.calls else "unknown"


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:,.4f}"


def _text(answer: Any) -> str:
    """An answer of any type as text; a missing one is empty."""
    if answer is None or isinstance(answer, str):
        return answer or ""
    return json.dumps(to_plain(answer), ensure_ascii=False, indent=2)


def _said(place: PlaceDiff) -> str:
    if place.one is None or place.other is None:
        return "only in the second run" if place.one is None else "only in the first run"
    return f"{', '.join(place.changed)} differ{'s' if len(place.changed) == 1 else ''}"


def _short(value: str | None) -> str:
    return "none" if value is None else repr(value if len(value) <= 60 else f"{value[:60]}…")


def _cut(line: str) -> str:
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"
