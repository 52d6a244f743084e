# ruff: noqa: RUF001 - prose of other scripts
"""The token bound holds for every class of characters, measured with the real tokenizers in
LlamaIndex's package.
"""

import base64
import itertools
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_integrations.lm.tokens import _COMMON, credible, most_tokens
from rlm_integrations.records import Message, Request, Usage

core = pytest.importorskip(
    "llama_index.core",
    reason="its package holds the tokenizers' files; the other environment has no LlamaIndex",
)
tiktoken = pytest.importorskip(
    "tiktoken", reason="LlamaIndex installs it; the other environment has no LlamaIndex"
)

Count = Callable[[str], int]
NAMES = ["cl100k_base", "o200k_base"]
RANDOM = random.Random(1)

# Prose, each from the Universal Declaration of Human Rights.
PROSE = {
    "Amharic": "የሰው፡ልጅ፡ሁሉ፡ሲወለድ፡ነጻና፡በክብርና፡በመብትም፡እኩልነት፡ያለው፡ነው። ሰላም ዓለም እንዴት ነህ ",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا ",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience. ",
    "Finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. ",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt. ",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. ",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. ",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। ",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. ",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. ",
    "Swahili": "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri. ",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. ",
    "Welsh": "Genir pawb yn rhydd ac yn gydradd â'i gilydd mewn urddas a hawliau. ",
    "Zulu": "Bonke abantu bazalwa bekhululekile belingana ngesithunzi nangamalungelo. ",
}
DENSE = {
    "base32": base64.b32encode(RANDOM.randbytes(3_000)).decode(),
    "base64": base64.b64encode(RANDOM.randbytes(3_000)).decode(),
    "code": Path(most_tokens.__code__.co_filename).read_text(encoding="utf-8"),
    "control": "".join(RANDOM.choices([chr(each) for each in range(32)], k=2_000)),
    "digits": "".join(RANDOM.choices(string.digits, k=2_000)),
    "emoji": "🧬🪐🦠🧿" * 200,
    "hex": RANDOM.randbytes(2_000).hex(),
    "HEX": RANDOM.randbytes(2_000).hex().upper(),
    "minified JSON": '{"a":[0.1234,5.6789,-12],"b":{"c":null,"d":"x"}},' * 100,
    "numbers": "0.1234,5.6789," * 200,
    "spaces and punctuation": "".join(RANDOM.choices(" .,;:!?-()", k=2_000)),
    "table": "| 12 | x |    |\n|----|---|----|\n" * 100,
    "white space": "".join(RANDOM.choices(" \n\t", k=2_000)),
}
# Alphabets, from which a test selects some characters each time.
CLASSES = {
    "ASCII": string.printable,
    "CJK": "".join(map(chr, range(0x4E00, 0x9FFF))),
    "Cyrillic": "".join(map(chr, range(0x400, 0x500))),
    "Ethiopic": "".join(map(chr, range(0x1200, 0x1380))),
    "Greek": "".join(map(chr, range(0x370, 0x400))),
    "Hangul": "".join(map(chr, range(0xAC00, 0xD7A4))),
    "Latin": "".join(map(chr, range(0xC0, 0x250))),
    "capitals": string.ascii_uppercase,
    "digits": string.digits,
    "emoji": "".join(map(chr, range(0x1F300, 0x1F700))),
    "kana": "".join(map(chr, range(0x3041, 0x3100))),
    "letters": string.ascii_letters,
    "punctuation": string.punctuation + " ",
    "small letters": string.ascii_lowercase,
    "white space": string.whitespace,
    "words": string.ascii_lowercase + "     ",
}


@pytest.fixture(scope="module", params=NAMES)
def count(request: pytest.FixtureRequest) -> Count:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "TIKTOKEN_CACHE_DIR", str(Path(core.__file__).parent / "_static" / "tiktoken_cache")
        )
        encoding = tiktoken.get_encoding(request.param)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


@pytest.mark.parametrize("text", [*PROSE.values(), *DENSE.values()], ids=[*PROSE, *DENSE])
def test_the_bound_holds_for_every_kind_of_text(count: Count, text: str) -> None:
    """For prose of many scripts, base64, hex, digits, tables and control characters, the bound is
    at least a tokenizer's count.
    """
    for piece in (text, text * 5, text[7:], text[: len(text) // 3]):
        assert count(piece) <= most_tokens(piece)


@pytest.mark.parametrize("alphabet", CLASSES.values(), ids=CLASSES)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_the_bound_holds_for_every_class_of_characters(
    count: Count, alphabet: str, data: st.DataObject
) -> None:
    """The bound holds for random strings over a part of each class, long enough that the constant
    per message does not matter.
    """
    part = data.draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=30, unique=True))
    seed = data.draw(st.integers(0, 1_000))
    text = "".join(random.Random(seed).choices(part, k=400))
    assert count(text) <= most_tokens(text)


def test_repeated_pairs_of_letters_take_no_more(count: Count) -> None:
    """The bound holds for all 676 pairs of letters, repeated: an unknown pair can be a token per
    letter.
    """
    for pair in itertools.product(string.ascii_lowercase, repeat=2):
        text = "".join(pair) * 100
        assert count(text) <= most_tokens(text)


def test_common_words_are_one_token(count: Count) -> None:
    """Each word counted as one token is one, alone and after a space, with and without a
    capital.
    """
    assert [
        word
        for word in sorted(_COMMON)
        if count(f" {word}") > 1 or count(word) > 1 or count(f" {word.title()}") > 1
    ] == []


def test_english_prose_is_bounded_by_about_twice_its_tokens(count: Count) -> None:
    """For prose and code the bound is at most 2.5 times the count, so that budgets are used."""
    for text in (PROSE["English"] * 10, DENSE["code"]):
        assert most_tokens(text) <= 2.5 * count(text)


def test_the_bound_never_exceeds_the_bytes() -> None:
    """The bound is at most the number of bytes, even for lone surrogates."""
    for text in ("", "a", "\ud83d", "word", "x" * 1_000, *PROSE.values(), *DENSE.values()):
        assert most_tokens(text) <= len(text.encode("utf-8", "surrogatepass")) + 1


@pytest.mark.parametrize(
    ("usage", "prompt", "reply", "is_credible"),
    [
        (Usage(10, 5), "x" * 40, "x" * 20, True),
        (Usage(0, 0), "x" * 40, "x" * 20, False),
        (Usage(0, 5), "x", "x" * 20, False),
        (Usage(10, 0), "x" * 40, "x", False),
        (Usage(10, 0), "x" * 40, "", True),
        (Usage(1, 1), "x" * 40_000, "y", False),
        (Usage(200, 1), " " * 20_000, "y", True),
    ],
)
def test_impossible_counts(usage: Usage, prompt: str, reply: str, is_credible: bool) -> None:
    """Counts of zero tokens for a text, or of fewer than a token per 200 characters, are
    unknown.
    """
    request = Request((Message("user", prompt),))
    assert credible(usage, request, reply) == (usage if is_credible else None)
    assert credible(None, request, reply) is None
