"""A window into a training under DP, for the auditor of the same site; shut in production.

What passes it is secret: who joined each step, and sums before their noise. So nothing
that arrives from outside can open it. There is no setting, no environment variable and no
word in a message for it: only code that calls `recorded_by`, which is the auditor's alone,
and only for trainings of its own thread, on models that are thrown away.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor, nn

LossFn = Callable[[int, Tensor, torch.Generator], Tensor]
"""(step from 0, rows (R,) of the samples, generator) -> loss of each row (R,)."""


class Recorder(Protocol):
    """What is called at the points of a training that an audit has to see."""

    def begin(self, weights: Mapping[str, nn.Parameter], loss: LossFn) -> LossFn:
        """A training begins; the loss that it shall call instead of its own."""
        ...

    def graded(self) -> None:
        """All gradients of some units of a step are on the weights, none is clipped."""
        ...

    def drew(self, noise: Tensor) -> None:
        """The site's secret gave out noise."""
        ...

    def noised(self) -> None:
        """The noised sum of a step is on the weights, not yet divided."""
        ...

    def end(self) -> None:
        """The training has ended, with what it sends in the weights."""
        ...


_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def recorder() -> Recorder | None:
    """Who records the trainings of this thread; nobody, but within an audit."""
    return _current.get()


@contextmanager
def recorded_by(one: Recorder) -> Iterator[None]:
    """Within it, trainings under DP in this thread are recorded by `one`."""
    token = _current.set(one)
    try:
        yield
    finally:
        _current.reset(token)
