"""The contract of every sandbox, for REPLs on actors."""

import pytest

pytest.importorskip("ray", reason="Ray has an environment of its own: `make test-ray`")

from rlm_integrations.ray import RayExecutor
from rlm_integrations.sandbox.base import Sandbox
from tests.sandbox import test_contract, test_contract_calls
from tests.sandbox.conftest import gate, open_session, run, session

FIXTURES = (gate, open_session, run, session)


@pytest.fixture
def sandbox(executor: RayExecutor) -> Sandbox:
    return executor.sandbox


# Their fixture `sandbox` is the one of this module
globals().update(
    {
        name: test
        for module in (test_contract, test_contract_calls)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }
)
