"""Records and replays scenes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from tests.cassettes.canonical import BASE_URL, CassetteError
from tests.cassettes.recorder import recording, replaying
from tests.cassettes.scenes import KEY, MODEL, SCENES, Provider, Scene

FOLDER = Path(__file__).parents[2] / "cassettes"
OTHERS = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def scenes() -> list[Scene]:
    """The scenes whose framework is installed: LlamaIndex's openai package needs openai 2."""
    return [
        scene
        for scene in SCENES
        if scene.framework == "langchain" or find_spec("llama_index") is not None
    ]


def record(scene: Scene, folder: Path, **settings: object) -> int:
    """Record a scene from the stand-in; returns the number of recorded calls."""
    with (
        bare_environment(),
        scene.stand_in(**settings) as server,
        recording(folder / scene.file, server.base_url, secrets=[KEY]) as tape,
    ):
        scene.check(scene.perform(Provider(server.base_url)))
    return len(tape)


def replay(scene: Scene, folder: Path) -> None:
    """Replay a scene, with the same checks as at its recording."""
    with bare_environment(), replaying(folder / scene.file):
        scene.check(scene.perform(Provider()))


def record_from(provider: Provider, scene: Scene, folder: Path) -> int:
    """Record a scene from a real provider, and check that the cassette replays to the same
    answer.
    """
    with recording(folder / scene.file, provider.base_url, secrets=[provider.key]) as tape:
        answer = scene.perform(provider)
        if not answer or answer.startswith("Error:"):
            raise CassetteError(
                f"{scene.file}: {provider.model} came to no answer, but to {answer!r}"
            )
    with bare_environment(), replaying(folder / scene.file):
        if scene.perform(Provider(BASE_URL, KEY, provider.model)) != answer:
            raise CassetteError(
                f"{scene.file} does not give its answer again, which was {answer!r}"
            )
    return len(tape)


def provider_of_environment() -> Provider | None:
    """The provider whose key is set, if any."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    base_url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return (
        Provider(base_url.rstrip("/"), key, os.environ.get("CASSETTES_MODEL") or MODEL)
        if key
        else None
    )


@contextmanager
def bare_environment() -> Iterator[None]:
    """Inside the `with`, remove the user's settings: keys, proxies, and tracing, which would send
    its own requests.
    """
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name.upper())}
    with mock.patch.dict(os.environ, kept, clear=True):
        yield


def _is_setting(name: str) -> bool:
    return name in OTHERS or name.startswith(("OPENAI_", "LANGCHAIN_", "LANGSMITH_"))
