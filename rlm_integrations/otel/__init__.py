"""OpenTelemetry: spans and metrics of runs and batches, from their events. Needs the extra `otel`.

    from rlm_integrations.otel import OTelHook

    rlm = RLM("gpt-5-mini", on_event=OTelHook())

The names are those of OpenTelemetry's conventions for generative AI, version 0.1.0, which are still
in development; what they have no name for begins with `rlm.`. A trace is a tree: the run
(`invoke_agent rlm`), its turns (`turn`), their calls of the root model (`chat MODEL`) and blocks of
code (`execute_tool repl`), and below a block what its code called: batches (`batch`), models, tools
and the store (`execute_tool NAME`), and child runs. The run, or a batch of `llm_batch`, is below
the span that is current where it is started.

A call that a resumed run took from its journal, or that the cache answered, is a span `replay
MODEL` or `cache MODEL`; it has no tokens and is not in the metrics. Prompts, replies, questions,
code and output are exported only with `include_content=True`.

In LangChain and LlamaIndex, the callbacks of the framework trace a run already: use either those or
this hook.
"""

from rlm_integrations.otel.hook import OTelHook

__all__ = ["OTelHook"]
