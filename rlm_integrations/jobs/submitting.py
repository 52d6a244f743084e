"""Questions as jobs of a queue."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final
from uuid import uuid4

from rlm_integrations._concurrency import runtime
from rlm_integrations._concurrency.cleanup import finish_despite_cancel
from rlm_integrations._concurrency.portal import synchronous
from rlm_integrations._concurrency.threads import in_thread
from rlm_integrations.engine.answering import check_prices, checked_question, corpus_of
from rlm_integrations.engine.front_types import Context
from rlm_integrations.engine.rlm import RLM
from rlm_integrations.engine.run_record import setup_of
from rlm_integrations.engine.settings import Settings
from rlm_integrations.errors import InputError, quote_value
from rlm_integrations.jobs.models import provider_of
from rlm_integrations.storage import Manifest, Storage
from rlm_integrations.storage.manifest import MODEL_CHARS, check_file_name
from rlm_integrations.storage.queue import DEFAULT_PRIORITY, MAX_ATTEMPTS, check_job

ANSWER: Final = "answer"


async def asubmit(
    rlm: RLM[Any],
    query: str,
    context: Context,
    *,
    task_type: str = ANSWER,
    priority: int = DEFAULT_PRIORITY,
    max_attempts: int = MAX_ATTEMPTS,
) -> str:
    """Add a question to the queue of the RLM's storage; the job's id, which is also that of its run.

    The document is kept in the storage, so that a worker on any machine can answer. Nothing is
    asked here.

    Args:
        rlm: Its models, by name, and its options are the job's.
        query: The question.
        context: As for `RLM.acompletion`.
        task_type: The kind of task, after which a folder of artifacts is named. Only workers with
            this `task_types` do it.
        priority: Jobs with smaller numbers come first; among equals, the older.
        max_attempts: How many attempts may be lost with their worker, or end with an error that may
            pass, before the job fails.

    Raises:
        InputError: The question, the context or an option is invalid.
        StorageError: The job could not be kept.
    """
    storage = rlm.options["storage"]
    if not isinstance(storage, Storage):
        raise InputError('a job needs a storage: RLM(…, storage=Storage("runs/"))')
    if not storage.keep_documents:
        raise InputError("jobs need a storage that keeps documents: Storage(keep_documents=True)")
    check_file_name("task_type", task_type)
    check_job(priority, max_attempts)
    settings = Settings.of(rlm.options)
    question = checked_question(query)
    for lm in (settings.root, *settings.subs.values()):
        if not 0 < len(lm.name) <= MODEL_CHARS:
            raise InputError(
                f"the name of a job's model must have 1 to {MODEL_CHARS} characters, not "
                f"{quote_value(lm.name)}"
            )
    await check_prices(settings)
    corpus = await corpus_of(context, settings.limits, storage)
    job_id = str(uuid4())
    try:
        setup = await setup_of(
            settings, corpus, question, on_incomplete=rlm.options["on_incomplete"], started=0.0
        )
        manifest = Manifest(
            task_type=task_type,
            llm_provider=provider_of(settings.root),
            llm_model=setup.models.root,
            sub_models=dict(setup.models.subs),
            question=question,
            sources=setup.sources,
            document=await storage.keep_document(job_id, corpus),
            options=dict(setup.options),
            prompts_sha256=await in_thread(_prompts_sha256),
        )
        return await in_thread(
            storage.queue.enqueue, manifest, priority, max_attempts=max_attempts, job_id=job_id
        )
    finally:
        if corpus is not context:
            await finish_despite_cancel(runtime.close_apart(corpus.close))


submit = synchronous(asubmit)


@cache
def _prompts_sha256() -> str:
    """The SHA-256 of the modules that have every word that the engine says to models. Blocks."""
    modules = files("rlm_integrations.engine.prompts").iterdir()
    contents = {each.name: each.read_bytes() for each in modules if each.name.endswith(".py")}
    return hashlib.sha256(b"".join(contents[name] for name in sorted(contents))).hexdigest()
