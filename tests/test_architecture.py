"""The folders are the architecture: imports go one way, names are exported once, importing is
cheap.
"""

import ast
import importlib
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import rlm_integrations
from rlm_integrations.errors import MissingExtraError

PACKAGE = Path(rlm_integrations.__file__).parent
# Each layer imports its own and those before it.
LAYERS = [
    {"errors"},
    {"_concurrency"},
    {"root"},
    {"extraction"},
    {"corpus"},
    {"lm", "sandbox", "store"},
    {"storage", "engine"},
    {"faces", "jobs", "report"},
    {"langchain", "llama_index", "otel", "ray", "cli"},
]
ROOT = 2  # modules beside the folders
# Imports against the direction: lazy, inside a function, each with its reason.
LAZY_EXCEPTIONS = {
    # A saved result restores its store, and its prompts refer to the corpus.
    ("result", "store"),
    ("result", "store.SharedStore"),
    # A result makes its page.
    ("result", "report"),
    # The result of an unfinished run is rebuilt from records, which are in the engine's encoding.
    ("storage.storage", "engine.partial_result"),
    ("storage.storage", "engine.partial_result.partial_result"),
}
FACADE = {"__init__", "__main__"}  # the package's __init__ exports names of every layer


def layer_of(module: str) -> int:
    part = module.split(".", maxsplit=1)[0]
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    return ROOT


@cache
def imports_of(path: Path, text: str | None = None) -> list[str]:
    """The modules of this package that a file imports, relative to the package."""
    package = ["rlm_integrations", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    for_types = {
        id(inner) for node in ast.walk(tree) if _is_type_checking(node) for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{name.name}" for name in node.names)]
    return [
        name.removeprefix("rlm_integrations.")
        for name in found
        if name.startswith("rlm_integrations.")
    ]


def _is_type_checking(node: ast.AST) -> bool:
    """Whether this is an `if TYPE_CHECKING:`, whose imports are never executed."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_file_is_long() -> None:
    """A file has at most 400 lines."""
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in modules()}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_imports_go_one_way() -> None:
    """Each layer imports only earlier layers of `LAYERS`: no later one, and no other part of the
    same layer.
    """
    wrong = []
    for path in modules():
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module in FACADE:
            continue
        for target in imports_of(path):
            same_part = module.split(".")[0] == target.split(".")[0]
            own, other = layer_of(module), layer_of(target)
            beside = own == other and own != ROOT and not same_part
            if (other > own or beside) and (module, target) not in LAZY_EXCEPTIONS:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_a_wrong_direction_is_detected() -> None:
    """The check of imports detects absolute, relative and aliased ones."""
    text = "from rlm_integrations.engine import loop\nfrom ..sandbox import base\nimport rlm_integrations.cli as c\n"
    found = imports_of(PACKAGE / "lm" / "probe.py", text)
    assert {"engine", "engine.loop", "sandbox", "sandbox.base", "cli"} <= set(found)
    assert layer_of("engine.loop") > layer_of("lm.probe")


def importers() -> dict[str, set[str]]:
    """Every module and the modules of the package that it imports, anywhere in its file."""
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules()
    }
    found = {}
    for name, path in files.items():
        targets = {each for each in imports_of(path) if each in files and each not in FACADE} - {
            name
        }
        # `from package import module` imports the module; the package's own front is meant
        # otherwise.
        found[name] = {
            each for each in targets if not any(other.startswith(f"{each}.") for other in targets)
        }
    return found


def circles(imported: dict[str, set[str]]) -> set[frozenset[str]]:
    """Modules that import each other, directly or indirectly."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = imported.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    reach = {name: reached(name) for name in imported}
    inside = [name for name in imported if name in reach[name]]
    return {
        frozenset(other for other in inside if other in reach[name] and name in reach[other])
        for name in inside
    }


def test_no_modules_import_each_other() -> None:
    """There is no import cycle, even with imports inside functions; and a cycle would be
    detected.
    """
    imported = importers()
    imported["result"] -= {target for _, target in LAZY_EXCEPTIONS}
    assert circles(imported) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}


# Names that are defined in several modules, each with its reason.
SAME_NAMES = {
    **dict.fromkeys(
        [
            "ProgressReporter",
            "RLMStoreRetriever",
            "TracedLM",
            "result_of",
            "store_of",
            "traced",
            "warn_of_slow",
        ],
        "each face's own, for its framework",
    ),
    "adapt": "what each adapter of a framework's models offers",
    "main": "the entry of a program",
}


def definitions() -> dict[str, list[str]]:
    """Public classes and functions of all modules, and where they are defined."""
    found: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(
                node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    return found


def test_a_name_has_one_meaning() -> None:
    """No two classes or public functions have the same name, except those listed as meaning the
    same.
    """
    several = {name: places for name, places in definitions().items() if len(places) > 1}
    assert {name: places for name, places in several.items() if name not in SAME_NAMES} == {}
    assert set(SAME_NAMES) <= set(several)


def packages() -> list[str]:
    return [
        "rlm_integrations",
        *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "rlm_integrations.") if m.ispkg),
    ]


@pytest.mark.parametrize("name", packages())
def test_exported_names_are_sorted_and_exist(name: str) -> None:
    """`__all__` of every package is sorted and correct, and equals the names of `import *` and
    `dir`.
    """
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:  # Ray has an environment of its own: `make test-ray`
        assert name == f"rlm_integrations.{error.extra}"
        pytest.skip(str(error))
    exported = getattr(module, "__all__", [])
    assert exported == sorted(
        exported, key=lambda each: (not each.isupper(), not each[0].isupper(), each)
    )
    assert all(hasattr(module, each) for each in exported)
    assert set(exported) <= set(dir(module))


def test_the_front_names_its_homes_once() -> None:
    """Every public name has one home, type checkers see the same names, and there are no others."""
    homes = [name for names in rlm_integrations._HOMES.values() for name in names]
    assert sorted(homes) == sorted(rlm_integrations.__all__)
    tree = ast.parse(Path(rlm_integrations.__file__).read_text(encoding="utf-8"))
    checked = [
        alias.name
        for node in tree.body
        if _is_type_checking(node)
        for each in node.body
        for alias in each.names
    ]
    assert sorted(checked) == sorted(homes)
    with pytest.raises(AttributeError, match="no attribute 'RLN'"):
        rlm_integrations.RLN  # noqa: B018 - the access is the test


HEAVY = [
    "aiohttp",
    "alembic",
    "genai_prices",
    "httpx",
    "httpx2",
    "langchain_core",
    "llama_index",
    "obstore",
    "openai",
    "opentelemetry",
    "pandas",
    "polars",
    "psycopg",
    "pydantic",
    "pypdf",
    "ray",
    "requests",
    "sqlalchemy",
    "tqdm",
    "yaml",
    "zstandard",
]


def test_importing_loads_no_framework_and_no_client() -> None:
    """`import rlm_integrations` loads no framework, client or database."""
    code = f"import sys, rlm_integrations; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
