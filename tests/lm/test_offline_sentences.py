"""The sentences that the offline model quotes."""

import time

import pytest

from rlm_integrations.lm.offline.sentences import extract, read_question, stem
from tests.lm._haystack import ASKED


def test_wrapped_prose_and_lines_are_both_read() -> None:
    """A line end within a sentence joins, one between records separates."""
    prose = (
        "It was cold. The access code of the\nLisbon vault, which nobody had\nopened, is 48213."
        " It was\nsummer by then, and late."
    )
    assert (
        extract(read_question(ASKED), prose)[0]
        == "The access code of the Lisbon vault, which nobody had opened, is 48213."
    )
    lines = "\n".join(
        f"2031-01-{day:02} worker {day} failed on host h{day}" for day in range(1, 29)
    )
    assert (
        extract(read_question("On which host did worker 7 fail?"), lines)[0]
        == "2031-01-07 worker 7 failed on host h7"
    )


@pytest.mark.parametrize(
    "forms",
    [
        ("vault", "vaults"),
        ("access", "accesses"),
        ("code", "codes", "coded", "coding"),
        ("city", "cities"),
        ("study", "studied", "studies", "studying"),
        ("stop", "stopped", "stopping", "stops"),
        ("locate", "location", "located", "locations"),
        ("encrypt", "encryption", "encrypted"),
        ("manage", "manager", "management", "managing"),
        ("found", "founder", "founders", "founded"),
    ],
)
def test_forms_of_a_word_share_their_stem(forms: tuple[str, ...]) -> None:
    """All forms of a word have the same stem, which is a prefix of each, so that a plain search
    finds them.
    """
    (shared,) = {stem(form) for form in forms}
    assert all(form.startswith(shared) for form in forms)


def test_hard_texts_take_linear_time() -> None:
    """Repetitive text, without spaces or ends of sentences, takes linear time: 16 times as much
    text, far less than 16 * 16.
    """
    question = read_question("List all codes of the vault.")

    def spent_on(length: int) -> float:
        before = time.process_time()
        extract(question, text * (length // len(text)))
        return time.process_time() - before

    for text in ("vault code ", "vaultcode", "... ", "\n", "code.\n", "a.b", "金库", 'Mr. "Mr. '):
        assert any(spent_on(480_000) < 64 * max(spent_on(30_000), 0.0005) for _ in range(3)), text
