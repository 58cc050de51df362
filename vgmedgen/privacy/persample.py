"""Gradients per privacy unit, in the one backward pass that training needs anyway.

Opacus' hooks take longer here and find nothing under gradient checkpointing. This does
the book-keeping inside autograd instead, refuses what it has no rule for, and leaves
clipping and noise to Opacus' optimiser, which reads `grad_sample`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from vgmedgen.errors import ConfigError, TrainingError
from vgmedgen.privacy.rules import Rule, rule_of


class PerUnit:
    """Within it, a backward pass leaves each unit's gradient on every weight.

    Set `units` to U before each forward pass with gradient. The rows of a batch lie unit
    by unit, as many for each (its images, and the noise draws of each image). After the
    backward pass `weight.grad_sample` is (U, *shape) float32: the gradient of the summed
    loss, taken apart by unit. Further passes add to it until it is set to None. A weight
    that the loss does not use has none. Nothing of one unit's rows gets into another's
    gradient, NaN included, as long as the loss of a row depends on that row alone.

    Passes under `torch.no_grad` are as without it. At the end the layers are as before
    and no `grad_sample` is left.

    Args:
        model: all that the loss runs through, frozen parts included.
        weights: what trains, by name.

    Raises:
        ConfigError: if a weight has no rule, if something trains that is not in
            `weights` or the other way round, or if a layer mixes rows or is random.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
        _check_rows_stay_apart(model)
        _check_same(model, weights)
        self.units = 0
        self._weights = list(weights.values())
        self._layers: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
        self._watches: list[torch.utils.hooks.RemovableHandle] = []
        for name, layer in model.named_modules():
            own = layer.named_parameters(recurse=False)
            training = {short: w for short, w in own if w.requires_grad}
            if not training:
                continue
            rule = rule_of(layer)
            if rule is None or not training.keys() <= rule.gradients.keys():
                raise ConfigError(
                    f"{_named(name, next(iter(training)))} trains in a layer of type "
                    f"{type(layer).__name__}, which has no rule for gradients per unit; "
                    "freeze it, or train without privacy"
                )
            if "forward" in vars(layer):
                raise ConfigError(
                    f"{name}: the forward pass of this {type(layer).__name__} was "
                    "replaced by something else, which would be lost; undo that first"
                )
            self._layers.append(
                (layer, partial(self._run, name, layer, rule, training))
            )

    def __enter__(self) -> Self:
        """Take over the layers' forward passes."""
        for layer, run in self._layers:
            layer.forward = run
        for weight in self._weights:
            weight.grad_sample = None  # type: ignore[attr-defined]
            watch = weight.register_hook(_refuse_gradient)  # type: ignore[no-untyped-call]
            self._watches.append(watch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the forward passes back and drop the gradients."""
        for layer, _ in self._layers:
            vars(layer).pop("forward", None)
        for watch in self._watches:
            watch.remove()
        self._watches.clear()
        for weight in self._weights:
            vars(weight).pop("grad_sample", None)

    def _run(
        self,
        name: str,
        layer: nn.Module,
        rule: Rule,
        training: Mapping[str, nn.Parameter],
        x: Tensor,
    ) -> Tensor:
        """The layer's forward pass, noted down."""
        if not torch.is_grad_enabled():
            return rule.forward(layer, x)
        if self.units < 1 or len(x) % self.units:
            raise TrainingError(
                f"{name}: {len(x)} rows do not divide among {self.units} units; each "
                "unit must bring equally many"
            )
        note = partial(_note, layer, rule, training, self.units)
        noted: Tensor
        if isinstance(layer, nn.Linear):
            noted = _NotedLinear.apply(  # type: ignore[no-untyped-call]
                x, layer.weight, layer.bias, note
            )
        else:
            noted = _Noted.apply(  # type: ignore[no-untyped-call]
                rule.forward(layer, x), x.detach(), note, *training.values()
            )
        return noted


class _NotedLinear(torch.autograd.Function):
    """A Linear whose backward pass tells `note` its input and gradient.

    Does what `_Noted` behind a fixed Linear would: LoRA is nothing but small Linears,
    where autograd's extra nodes would cost 6 % of a step.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        note: Callable[[Tensor, Tensor], None],
    ) -> Tensor:
        # through autograd, so that checkpointing may drop the input and recompute it
        ctx.save_for_backward(x, weight)
        ctx.note = note
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        ctx.note(x, grad)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return (grad @ weight.to(grad.dtype)).to(x.dtype), None, None, None


class _Noted(torch.autograd.Function):
    """The identity; its backward pass tells `note` the layer's input and gradient.

    The weights are arguments so that a graph is built even where only they train.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        out: Tensor,
        x: Tensor,
        note: Callable[[Tensor, Tensor], None],
        *_: nn.Parameter,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.note = note
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        ctx.note(x, grad)
        return (grad, *[None] * (len(ctx.needs_input_grad) - 1))


def _note(
    layer: nn.Module,
    rule: Rule,
    training: Mapping[str, nn.Parameter],
    units: int,
    x: Tensor,
    grad: Tensor,
) -> None:
    """Add what this use of the layer asks of its weights to their `grad_sample`."""
    for name, weight in training.items():
        fresh = rule.gradients[name](layer, x, grad, units)
        before: Tensor | None = getattr(weight, "grad_sample", None)
        if before is not None and len(before) != units:  # 1 would broadcast
            raise TrainingError(
                f"gradients of {units} units would be added to those of {len(before)}; "
                "set grad_sample to None between batches"
            )
        total = fresh if before is None else before + fresh
        weight.grad_sample = total  # type: ignore[attr-defined]


def _check_rows_stay_apart(model: nn.Module) -> None:
    """Refuse layers that mix rows, frozen or not, and layers that are random."""
    for name, layer in model.named_modules():
        kind = type(layer).__name__
        running = getattr(layer, "track_running_stats", False)
        if isinstance(layer, _BatchNorm) or running:
            raise ConfigError(
                f"{name}: {kind} mixes the samples of a batch, so no gradient is one "
                "unit's alone; use GroupNorm or LayerNorm"
            )
        if isinstance(layer, _DropoutNd) and layer.p > 0:
            raise ConfigError(
                f"{name}: {kind} with p {layer.p} is random, and gradients per unit "
                "cannot be checked against each unit alone; set p to 0"
            )


def _check_same(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse unless `weights` is what trains in the model, all of it and no more."""
    training = {id(w): n for n, w in model.named_parameters() if w.requires_grad}
    named = {id(w): n for n, w in weights.items()}
    for key, name in training.items():
        if key not in named:
            raise ConfigError(
                f"{name} trains but is not among the {len(named)} weights that privacy "
                "covers; freeze it or add it"
            )
    for key, name in named.items():
        if key not in training:
            raise ConfigError(
                f"{name} is to train with privacy but is frozen, or not of this model"
            )


def _refuse_gradient(grad: Tensor | None) -> None:
    """Stop where autograd itself has a gradient for a weight: not taken apart by unit."""
    if grad is not None:
        raise TrainingError(
            "the loss uses a weight outside its layer, where its gradient cannot be "
            "taken apart by unit; let the loss go through the layer"
        )


def _named(layer: str, weight: str) -> str:
    return f"{layer}.{weight}" if layer else weight
