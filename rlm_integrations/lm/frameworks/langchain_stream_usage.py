"""The token counts of streamed calls of LangChain's models."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.base import RunnableBindingBase


class StreamUsage:
    """Whether a streamed call has to request its token counts: ChatOpenAI requests them by itself
    only at OpenAI's own address.
    """

    def __init__(self, asked: object, models: Sequence[BaseChatModel]) -> None:
        self._model: Any = (
            models[0]
            if len(models) == 1 and "stream_usage" in type(models[0]).model_fields
            else None
        )
        self._bound: dict[str, Any] = {}
        while isinstance(asked, RunnableBindingBase):
            self._bound = {**asked.kwargs, **self._bound}
            asked = asked.bound
        if asked is not self._model:
            self._model = None  # the object around it may not accept the argument

    def is_missing(self, params: Mapping[str, Any], *, streamed: bool) -> bool:
        """Whether the call will be streamed without a setting for token counts."""
        model = self._model
        if model is None or model.stream_usage is not None or model.disable_streaming is True:
            return False
        streaming = model.streaming if "streaming" in model.model_fields_set else None
        given = {**getattr(model, "model_kwargs", {}), **self._bound, **params}
        if streaming is False or given.get("stream") is False or not (streamed or streaming):
            return False
        uses_responses = getattr(model, "_use_responses_api", None)  # that API always counts
        return not (
            {"stream_usage", "stream_options"} & given.keys()
            or (uses_responses is not None and uses_responses(given))
        )
