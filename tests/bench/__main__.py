"""`make bench`: every benchmark but the long ones, or the named ones; exits with 1 if a goal is
missed.
"""

import asyncio
import importlib
import inspect
import sys
from pathlib import Path

from tests.bench.table import show

NOT_BENCHES = {"__init__", "__main__", "table"}


def main(names: list[str]) -> int:
    known = sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if path.stem not in NOT_BENCHES and not path.stem.startswith("_")
    )
    if unknown := set(names) - set(known):
        print(f"no benchmark is called {sorted(unknown)}; there are {known}", file=sys.stderr)
        return 2
    met = True
    for name in names or known:
        module = importlib.import_module(f"tests.bench.{name}")
        if not names and getattr(module, "IS_LONG", False):
            continue
        rows = (
            asyncio.run(module.run()) if inspect.iscoroutinefunction(module.run) else module.run()
        )
        met = (
            show(f"{name}: {inspect.cleandoc(module.__doc__ or '').splitlines()[0]}", rows) and met
        )
    print("\nall goals met" if met else "\na goal was missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
