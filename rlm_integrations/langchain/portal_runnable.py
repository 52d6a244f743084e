"""The sync and async API of a runnable over one async implementation: synchronous calls run through
the portal.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Generic, Self, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from typing_extensions import override

from rlm_integrations._concurrency.portal import portal
from rlm_integrations.errors import InputError
from rlm_integrations.langchain.trace import ChainRun

Output = TypeVar("Output")


class PortalRunnable(RunnableSerializable[Any, Output], Generic[Output]):
    """A runnable whose traces show a preview instead of its input, which may be large.

    Options passed to a call, for example by `bind`, override the runnable's options for that call.
    """

    @abstractmethod
    def _parse_input(self, given: Any) -> tuple[Any, dict[str, Any]]:
        """The parsed input, and the preview of it that traces show."""

    @abstractmethod
    def _parts(
        self, asked: Any, manager: ChainRun, config: RunnableConfig
    ) -> AsyncGenerator[Output, None]:
        """The chunks of the output; their sum is the whole output.

        `config` is the configuration for child runs.
        """

    @abstractmethod
    async def _whole(self, asked: Any, manager: ChainRun, config: RunnableConfig) -> Output:
        """The output."""

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other options.

        Raises:
            InputError: An option is unknown.
        """
        known = type(self).model_fields
        if unknown := (update or {}).keys() - known.keys():
            raise InputError(
                f"{type(self).__name__} has no option "
                f"{', '.join(map(repr, sorted(unknown)))}; there are {', '.join(known)}"
            )
        return super().model_copy(update=update, deep=deep)

    # LangChain's name
    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Output:  # noqa: A002
        """The output."""
        if options:
            return self.model_copy(update=options).invoke(input, config)
        asked, preview = self._parse_input(input)

        def answer(
            _shown: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Output:
            return portal().run(self._whole(asked, run_manager, config))

        return self._call_with_config(answer, preview, config)

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Output:
        """The output."""
        if options:
            return await self.model_copy(update=options).ainvoke(input, config)
        asked, preview = self._parse_input(input)

        async def answer(
            _shown: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> Output:
            return await self._whole(asked, run_manager, config)

        return await self._acall_with_config(answer, preview, config)

    def stream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Iterator[Output]:
        """The parts of the output as they are known. Closing it early ends the work."""
        if options:
            yield from self.model_copy(update=options).stream(input, config)
            return
        asked, preview = self._parse_input(input)

        def answer(
            _shown: Iterator[Any], run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Iterator[Output]:
            return portal().iterate(self._parts(asked, run_manager, config))

        yield from self._transform_stream_with_config(iter([preview]), answer, config)

    async def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> AsyncIterator[Output]:
        """The parts of the output as they are known. Closing it early ends the work."""
        if options:
            async with aclosing(
                cast(
                    "AsyncGenerator[Output, None]",
                    self.model_copy(update=options).astream(input, config),
                )
            ) as parts:
                async for part in parts:
                    yield part
            return
        asked, preview = self._parse_input(input)

        def answer(
            _shown: AsyncIterator[Any],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[Output]:
            return self._parts(asked, run_manager, config)

        async def previews() -> AsyncGenerator[Any, None]:
            yield preview

        coming = self._atransform_stream_with_config(previews(), answer, config)
        async with aclosing(cast("AsyncGenerator[Output, None]", coming)) as chunks:
            async for chunk in chunks:
                yield chunk
