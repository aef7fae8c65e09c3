"""Progress of reading a checkpoint, in place of transformers' progress bar on standard error."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.std import tqdm
from transformers.utils import logging as transformers_logging


@contextmanager
def reported_weights(report: Callable[[float], None]) -> Iterator[None]:
    """Call `report` with the share of the weights that was read, 0 to 1, inside the block.

    An exception that `report` raises ends the reading.
    """

    class Bar(tqdm):
        # No thread that watches for slow bars: there is nothing to redraw.
        monitor_interval = 0

        def display(self, *_args: Any, **_kwargs: Any) -> bool:
            return True

        # Both below report outside display, which holds tqdm's lock: `report` may raise to cancel.
        def update(self, n: float | None = 1) -> bool | None:
            result = super().update(n)
            self._report()
            return result

        def __iter__(self) -> Iterator[Any]:
            for item in self.iterable:
                yield item
                self.update()

        def _report(self) -> None:
            if self.total:
                report(self.n / self.total)

    def make_bar(_factory: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bar:
        return Bar(*args, **{**kwargs, "file": io.StringIO()})

    former = transformers_logging.set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(former)
