"""The reference has every field of every setting, record and event, as in their docstrings."""

from dataclasses import fields
from typing import Any

import pytest

from rlm_integrations import events
from tests.readme import ENGINE, PACKAGE, README
from tests.reference import PAGE, RECORDS, SETTINGS, event_kinds, field_meanings, page


def test_the_page_is_up_to_date() -> None:
    """The page equals the output of `python -m tests.reference`; other pages link to it."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert PAGE == PACKAGE / "REFERENCE.md"
    assert "(rlm_integrations/REFERENCE.md)" in README.read_text(encoding="utf-8")
    assert "(../REFERENCE.md)" in ENGINE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [*SETTINGS, *RECORDS], ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind: Any) -> None:
    """Every field of a setting or a record has a description, except simple pairs with
    self-explanatory names.
    """
    if kind.__name__ in {"Usage", "Message", "SpanRef"}:
        return
    names = (
        {each.name for each in fields(kind)}
        if hasattr(kind, "__dataclass_fields__")
        else set(kind.__slots__)
    )
    assert names - dict(field_meanings(kind)).keys() == set()


def test_every_event_is_on_the_page() -> None:
    """Every kind of event is on the page."""
    assert {kind.__name__ for kind in event_kinds()} == {
        each.__name__ for each in events.Event.__subclasses__()
    }
