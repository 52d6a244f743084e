"""What is stored has no secrets of the process that stored it."""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, select

from rlm_integrations import RLM, OpenAILM
from rlm_integrations.storage import Storage
from rlm_integrations.storage.record_bodies import unpacked
from tests.standin import serve_in_thread
from tests.standin.settings import Ask
from tests.storage._runs import code

LARGE = "large " * 20_000
SCRIPT = [
    code(
        "import os",
        "print(dict(os.environ))",
        "replies = llm_batch([f'number {n}' for n in range(5)], model='keyed')",
        "store.create('note', 'replies', replies)",
    ),
    code("FINAL(replies, evidence=[cite('the last line')])"),
]


def script_of(ask: Ask) -> str:
    is_root = ask.body["messages"][0]["role"] == "system"
    return SCRIPT[ask.turn] if is_root else f"re: {ask.prompt} {LARGE}"


def contents(storage: Storage, folder: Path) -> Iterator[bytes]:
    """Every file as it is, every value of every row, and what is compressed in them."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_bytes()
    schema, database = storage._shared.database.schema, storage._shared.database
    for table in schema.metadata.sorted_tables:
        rows = database.read(lambda each, table=table: each.execute(select(table)).all())  # type: ignore[misc]
        for row in rows:
            for name, value in row._mapping.items():
                yield value if isinstance(value, bytes) else str(value).encode()
                if name == "body" and value is not None:
                    yield unpacked(value, "a row")
    blobs = schema.blobs
    for sha256 in database.read(lambda each: each.scalars(select(blobs.c.sha256)).all()):
        yield storage.lake.get(sha256)


def test_no_key_header_or_variable_is_written(
    place: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the key of the environment, nor that of a client, nor a header, nor a variable, nor
    the password of the database; and all files are the user's alone.
    """
    hidden = {
        name: secrets.token_hex(16) for name in ("OPENAI_API_KEY", "RLM_TOKEN", "key", "header")
    }
    for name in ("OPENAI_API_KEY", "RLM_TOKEN"):
        monkeypatch.setenv(name, hidden[name])
    before = os.umask(0)
    try:
        with (
            serve_in_thread(scripts={"stand-in": script_of}) as provider,
            Storage(place[0], lake=place[1]) as storage,
        ):
            root = OpenAILM("stand-in", base_url=provider.base_url)
            keyed = OpenAILM(
                "stand-in",
                base_url=provider.base_url,
                api_key=hidden["key"],
                headers=lambda _: {"x-token": hidden["header"]},
            )
            rlm = RLM(root, {"keyed": keyed}, storage=storage)
            result = rlm.completion("What is it?", f"Many lines.\n{LARGE}\nthe last line")
            assert (result.stop_reason, len(json.loads(str(result.answer)))) == ("final", 5)
            storage.export(result.run_id, tmp_path / "run.zip")
            kept = list(contents(storage, tmp_path))
    finally:
        os.umask(before)
    password = [str(make_url(place[0]).password)] if "://" in place[0] else []
    assert any(LARGE.encode() in each for each in kept)  # what is compressed is seen
    assert len(kept) > 100
    for secret in [*hidden.values(), *password]:
        assert not any(secret.encode() in each for each in kept)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        # Access to an object store is its own, also to the one on the disk here
        if not path.is_relative_to(tmp_path / "lake") or place[1] is None or "://" not in place[1]
    }
    assert modes == {name: 0o700 if (tmp_path / name).is_dir() else 0o600 for name in modes}
