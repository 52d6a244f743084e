# `make test` sets everything up by itself: it needs Python 3.11 or later with pip, and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENV2 := .venv
ENV3 := .venv-openai3
ENV_RAY := .venv-ray
ENV_AGENTS := .venv-agents
# More workers than cores: tests wait, too.
PYTEST := -m pytest --dist worksteal
PYTEST_ARGS ?=

# Every worker and every interpreter that a test starts would compile the frameworks again: seconds each.
export PYTHONDONTWRITEBYTECODE :=

# openai 2 with everything, LlamaIndex included; and openai 3, which LlamaIndex's own openai package excludes.
EXTRAS2 := all
EXTRAS3 := langchain,storage
EXTRAS_RAY := ray,postgres
EXTRAS_AGENTS := langchain-agents,storage
# What openai 3 can change: tests of our client, and those of the frameworks' models that call by its SDK. Anthropic's newest
# package is in this environment only.
TESTS3 := $(wildcard tests/lm/test_openai*.py tests/lm/test_adapters*.py) \
  $(patsubst %,tests/%.py,lm/test_connections lm/test_loading lm/test_batch_server lm/test_resolve cassettes/test_cassettes \
  langchain/test_fast langchain/test_models langchain/test_streaming langchain/test_trace)
OF_OPENAI3 := openai or anthropic or test_cassettes or fast or loading or connections or batch_server

.PHONY: test check lint bench demo record matrix constraints clean test-exhaustive test-openai3 test-mariadb test-ray test-agents test-loaded soak soak-agents coverage

test: $(ENV2)/ready
	$(ENV2)/bin/python $(PYTEST) -n 4 -m 'not exhaustive' $(PYTEST_ARGS)

# What `test` leaves out because it takes long: every case of rules of which `test` proves some cases.
test-exhaustive: $(ENV2)/ready
	$(ENV2)/bin/python $(PYTEST) -n 2 -m exhaustive $(PYTEST_ARGS)

test-openai3: $(ENV3)/ready
	$(ENV3)/bin/python $(PYTEST) -n 2 $(TESTS3) -k '$(OF_OPENAI3)' $(PYTEST_ARGS)

# The tests of the storage on MariaDB, from Debian's mariadb-server-core and mariadb-client-core.
test-mariadb: $(ENV2)/ready
	RLM_TEST_DATABASES=mariadb $(ENV2)/bin/python $(PYTEST) -n 2 tests/storage -k mariadb $(PYTEST_ARGS)

# On a Ray cluster of two nodes on this machine.
test-ray: $(ENV_RAY)/ready
	$(ENV_RAY)/bin/python -c 'import ray'
	$(ENV_RAY)/bin/python -m pytest tests/ray $(PYTEST_ARGS)

# Deep Agents, and the newest LangChain.
test-agents: $(ENV_AGENTS)/ready
	$(ENV_AGENTS)/bin/python -c 'import deepagents'
	$(ENV_AGENTS)/bin/python -m pytest tests/agents tests/langchain/test_middleware.py $(PYTEST_ARGS)

# What every change must pass.
check: lint test test-exhaustive test-openai3

# The tests three times, beside two processes that never rest: no test may depend on the machine's speed.
test-loaded: $(ENV2)/ready $(ENV3)/ready
	@for core in 1 2; do (while :; do :; done) & busy="$$busy $$!"; done; trap 'kill $$busy' EXIT; \
	for round in 1 2 3; do $(MAKE) --no-print-directory test test-exhaustive test-openai3 || exit 1; done

# A run that is killed twenty times, on each database; `make soak SEED=7` repeats one. Then random stores in a database,
# compared with stores in memory.
soak: $(ENV2)/ready
	$(ENV2)/bin/python -m tests.storage.soak $(SEED)
	RLM_EXAMPLES=10 $(ENV2)/bin/python -m pytest -q -n 2 tests/storage/test_store_properties.py

# An agent makes 10,000 tool calls and is killed meanwhile; five minutes. `make soak-agents CALLS=500 SEED=7` is shorter.
CALLS ?= 10000
soak-agents: $(ENV_AGENTS)/ready
	$(ENV_AGENTS)/bin/python -m tests.agents.soak $(CALLS) $(SEED)

# The coverage of 200 random runs, compared with what the provider was sent; `make coverage SEED=7` repeats them.
coverage: $(ENV2)/ready
	$(ENV2)/bin/python -m tests.engine.coverage_runs 200 $(SEED)

lint: $(ENV2)/ready
	$(ENV2)/bin/ruff check .
	$(ENV2)/bin/ruff format --check .
	$(ENV2)/bin/mypy
	$(ENV2)/bin/mypy tests/typing/api.py
	$(ENV2)/bin/pyright --pythonpath $(ENV2)/bin/python

bench: $(ENV2)/ready $(ENV3)/ready
	$(ENV2)/bin/python -m tests.bench
	$(ENV3)/bin/python -m tests.bench client

# Needs no key and no network. `make demo SEED=7` repeats a run.
demo: $(ENV2)/ready
	$(ENV2)/bin/python examples/demo.py $(if $(SEED),--seed $(SEED))

# The cassettes, afresh from the stand-in; see cassettes/README.md. Where OPENAI_API_KEY is set, that provider is asked too, and paid.
record: $(ENV2)/ready
	$(ENV2)/bin/python -m tests.cassettes

# The tests under every supported Python that is on this machine.
matrix:
	@set -e; for version in 3.11 3.12 3.13; do \
	  if command -v python$$version >/dev/null && python$$version -c 'import sys' 2>/dev/null; then \
	    $(MAKE) --no-print-directory PYTHON=$$(command -v python$$version) ENV2=.venv-py$$version ENV3=.venv-py$$version-openai3 test; \
	  else echo "python$$version is not here"; fi; done

# uv with pip's indexes, certificates and proxy.
UV := $(PYTHON) .ci/uv.py

# uv, because pip alone takes half an hour over this set; venv without pip, because Debian splits ensurepip off.
define make_env
	rm -rf $(1)
	$(PYTHON) -m venv --without-pip $(1)
	$(PYTHON) -m pip --disable-pip-version-check --python $(1)/bin/python install --quiet uv
	$(UV) $(1)/bin/uv pip install --quiet --python $(1)/bin/python --constraint tests/constraints-$(3).txt \
	  --editable '.[$(2)]' --group $(3)
	touch $(1)/ready
endef

$(ENV2)/ready: pyproject.toml tests/constraints-openai2.txt
	$(call make_env,$(ENV2),$(EXTRAS2),openai2)

$(ENV3)/ready: pyproject.toml tests/constraints-openai3.txt
	$(call make_env,$(ENV3),$(EXTRAS3),openai3)

$(ENV_RAY)/ready: pyproject.toml tests/constraints-ray.txt
	$(call make_env,$(ENV_RAY),$(EXTRAS_RAY),ray)

$(ENV_AGENTS)/ready: pyproject.toml tests/constraints-agents.txt
	$(call make_env,$(ENV_AGENTS),$(EXTRAS_AGENTS),agents)

# Takes the newest versions that fit together. Names and versions only: an address in a committed file would be a leak.
constraints: $(ENV2)/ready
	$(UV) $(ENV2)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra all --group openai2 -o tests/constraints-openai2.txt pyproject.toml
	$(UV) $(ENV2)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra langchain --extra storage --group openai3 -o tests/constraints-openai3.txt pyproject.toml
	$(UV) $(ENV2)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra ray --extra postgres --group ray -o tests/constraints-ray.txt pyproject.toml
	$(UV) $(ENV2)/bin/uv pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra langchain-agents --extra storage --group agents -o tests/constraints-agents.txt pyproject.toml

clean:
	rm -rf .venv* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
