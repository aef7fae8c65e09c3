"""What the routers of a model put out during a pass, whoever has patched them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from bh_studio.engine.moe.replacement import Replacement
from bh_studio.engine.moe.routers import find_routers

# Logits (row, expert), mixing weights and expert indices (row, slot) of one layer.
RouterOutput = tuple[Tensor, Tensor, Tensor]


class RouterCapture:
    """Keeps what the routers of `model` put out last, within a `with` block.

    Entered inside that of a RoutingIntegration it sees what the rule puts out. A layer is kept
    until it runs again, so that a pass can be looked at after the block.
    """

    def __init__(self, model: nn.Module) -> None:
        routers = find_routers(model)
        self._outputs: list[RouterOutput | None] = [None] * len(routers)
        self._replacements = [
            Replacement(router, self._keeping(layer)) for layer, router in enumerate(routers)
        ]

    def __enter__(self) -> Self:
        for replacement in self._replacements:
            replacement.apply()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for replacement in self._replacements:
            replacement.undo()

    @property
    def outputs(self) -> Sequence[RouterOutput]:
        """Of each layer. Raises RuntimeError if a layer has not run."""
        ran = [output for output in self._outputs if output is not None]
        if len(ran) < len(self._outputs):
            raise RuntimeError("Not every router has run.")
        return ran

    def _keeping(self, layer: int) -> Any:
        def keep(original: Any, *args: Any, **kwargs: Any) -> RouterOutput:
            output: RouterOutput = original(*args, **kwargs)
            self._outputs[layer] = output
            return output

        return keep
