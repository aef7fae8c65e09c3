"""Another forward for one module instance, put in place and taken back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Wrapper = Callable[..., Any]


class Replacement:
    """The forward of `module` replaced by `wrapper`, whose first argument is the former one.

    A comparison does both at every token: the instance's attributes are set directly, without
    nn.Module's search among parameters and submodules, and nothing is made anew.
    """

    def __init__(self, module: Any, wrapper: Wrapper) -> None:
        self._attributes: dict[str, Any] = vars(module)
        self._class_forward = functools.partial(type(module).forward, module)
        self._wrapper = wrapper
        self._former: Any = None
        self._forward: Any = None

    def apply(self) -> None:
        """Replace the forward; the former one is the wrapper's first argument."""
        # Another library may have replaced the forward of this instance too; that one comes back.
        former = self._attributes.get("forward")
        if self._forward is None or former is not self._former:
            self._former = former
            self._forward = functools.partial(self._wrapper, former or self._class_forward)
        self._attributes["forward"] = self._forward

    def undo(self) -> None:
        """Put the former forward back, unless somebody else has replaced ours meanwhile."""
        if self._attributes.get("forward") is not self._forward:
            return
        if self._former is None:
            del self._attributes["forward"]
        else:
            self._attributes["forward"] = self._former
