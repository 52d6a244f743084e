"""Importing the face is cheap, and a clear error without LlamaIndex."""

import pytest

from tests._script import run_script
from tests.llama_index._world import NO_LLAMA_INDEX

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"llama_index", "llama_index_instrumentation", "workflows"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import rlm_integrations.llama_index
except ImportError as error:
    print(type(error).__name__, error.extra, error)
"""


def test_without_llama_index() -> None:
    """The error is an ImportError of this library that names the extra."""
    done = run_script(WITHOUT)
    assert done.stdout.startswith(
        "MissingExtraError llama-index rlm_integrations.llama_index needs packages that are not installed"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_importing_loads_no_client_and_no_other_framework() -> None:
    """Importing the face loads only LlamaIndex's core: no openai, no HTTP client, no LangChain."""
    pytest.importorskip("llama_index.core", reason=NO_LLAMA_INDEX)
    code = """
import sys, warnings
warnings.simplefilter("ignore")  # LlamaIndex's own, while it is imported
import rlm_integrations.llama_index
print([name for name in ("openai", "langchain", "langchain_core", "langgraph", "genai_prices") if name in sys.modules])
"""
    done = run_script(code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
