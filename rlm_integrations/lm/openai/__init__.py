"""Models behind OpenAI's API: the model, its client and its transport."""

from rlm_integrations.lm.openai.model import OpenAILM

__all__ = [
    "OpenAILM",
]
