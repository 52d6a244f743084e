"""The id of a run that a framework makes again after a crash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from rlm_integrations import RLM
from rlm_integrations.corpus import Corpus

_ID_CHARS = 32


def derive_run_id(rlm: RLM, place: Sequence[str], question: str, corpus: Corpus) -> str:
    """The id of the run that this `RLM` makes at a place of a framework's own record.

    The same place, question, document, models and options give the same id, so that the run is
    resumed; if any of them differs, it is another run. Blocks; call it in a thread.

    Args:
        rlm: Makes the run.
        place: What the framework calls the place: the same after a crash, another for each visit.
        question: The question.
        corpus: The document.
    """
    options = rlm.options
    sandbox = options["sandbox"]
    parts = [
        list(place),
        question,
        [source.sha256 for source in corpus.sources],
        options["root_llm"].name,
        {name: lm.name for name, lm in options["sub_llm"].items()},
        options["max_depth"],
        options["store_mode"],
        sandbox if isinstance(sandbox, str) else type(sandbox).__qualname__,
        [getattr(tool, "__name__", "") for tool in options["tools"]],
        str(options["output_type"]),
        *([] if options["store"] is None else [options["store"].name]),
        *(["structured"] if options["structured"] else []),
        *([options["instructions"]] if options["instructions"] else []),
        *([asdict(options["prompt"])] if options["prompt"] else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_ID_CHARS]
