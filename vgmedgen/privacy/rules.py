"""What each layer does with its weights, and what a unit's rows ask of them.

A rule has the layer's forward pass with its weights held fixed, so that autograd sends
the gradient on to the input and spends nothing on the weights, and for every weight the
gradient per unit from the layer's input and the gradient of its output.

U units, R rows of samples; the rows of a unit are contiguous.
Source: Goodfellow 2015, arXiv 1510.01799, for Linear; the others follow by the same sum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Gradient = Callable[[Any, Tensor, Tensor, int], Tensor]
"""(layer, input (R, ...), gradient of the output (R, ...), U) -> (U, *weight's shape)."""


@dataclass(frozen=True)
class Rule:
    """How one layer is run and what its weights' gradients per unit are.

    Attributes:
        forward: (layer, input) -> output, without gradient to the weights.
        gradients: by the weight's name in the layer; float32.
    """

    forward: Callable[[Any, Tensor], Tensor]
    gradients: Mapping[str, Gradient]


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer; none if it has no rule, as any subclass of a known layer."""
    known = RULES.get(type(layer))
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        plain = layer.groups == 1 and layer.padding_mode == "zeros"
        return known if plain and not isinstance(layer.padding, str) else None
    return known or _mark_rule(layer)


def _fixed(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach()


def _fold(rows: Tensor, units: int, shape: torch.Size) -> Tensor:
    """Sum over all of a unit's rows and over all axes before those of `shape`."""
    return rows.float().reshape(units, -1, *shape).sum(1)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return functional.linear(x, layer.weight.detach(), _fixed(layer.bias))


def _linear_weight(_: nn.Linear, x: Tensor, grad: Tensor, units: int) -> Tensor:
    seen = x.float().reshape(units, -1, x.shape[-1])
    asked = grad.float().reshape(units, -1, grad.shape[-1])
    return torch.bmm(asked.transpose(1, 2), seen)


def _last_bias(layer: Any, _: Tensor, grad: Tensor, units: int) -> Tensor:  # noqa: ANN401
    return _fold(grad, units, layer.bias.shape)


def _layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    shape = layer.normalized_shape
    return functional.layer_norm(
        x, shape, _fixed(layer.weight), _fixed(layer.bias), layer.eps
    )


def _layer_norm_weight(
    layer: nn.LayerNorm, x: Tensor, grad: Tensor, units: int
) -> Tensor:
    normed = functional.layer_norm(x.float(), layer.normalized_shape, eps=layer.eps)
    return _fold(normed * grad, units, layer.weight.shape)


def _group_norm(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    return functional.group_norm(
        x, layer.num_groups, _fixed(layer.weight), _fixed(layer.bias), layer.eps
    )


def _group_norm_weight(
    layer: nn.GroupNorm, x: Tensor, grad: Tensor, units: int
) -> Tensor:
    normed = functional.group_norm(x.float(), layer.num_groups, eps=layer.eps)
    return _fold((normed * grad).flatten(2).sum(2), units, layer.weight.shape)


def _channel_bias(layer: Any, _: Tensor, grad: Tensor, units: int) -> Tensor:  # noqa: ANN401
    return _fold(grad.float().flatten(2).sum(2), units, layer.bias.shape)


def _conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(
        x,
        layer.weight.detach(),
        _fixed(layer.bias),
        layer.stride,
        layer.padding,
        layer.dilation,
    )


def _conv_weight(layer: nn.Conv2d, x: Tensor, grad: Tensor, units: int) -> Tensor:
    rows = torch.bmm(grad.float().flatten(2), _patches(layer, x).transpose(1, 2))
    return _fold(rows, units, layer.weight.shape)


def _conv_transposed(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    return functional.conv_transpose2d(
        x,
        layer.weight.detach(),
        _fixed(layer.bias),
        layer.stride,
        tuple(map(int, layer.padding)),  # `rule_of` lets no word through
        layer.output_padding,
        dilation=layer.dilation,
    )


def _conv_transposed_weight(
    layer: nn.ConvTranspose2d, x: Tensor, grad: Tensor, units: int
) -> Tensor:
    # a transposed convolution is a convolution read backwards: input and output swap
    rows = torch.bmm(x.float().flatten(2), _patches(layer, grad).transpose(1, 2))
    return _fold(rows, units, layer.weight.shape)


def _patches(layer: Any, image: Tensor) -> Tensor:  # noqa: ANN401
    """What the kernel sees at each place: (R, channels * kernel area, places)."""
    return functional.unfold(
        image.float(), layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )


def _mark_rule(layer: nn.Module) -> Rule | None:
    """The rule of a layer that adds its one weight, a vector, to whatever it gets."""
    own = list(layer.named_parameters())
    if len(own) != 1 or own[0][1].dim() != 1 or next(layer.children(), None):
        return None
    name, mark = own[0]
    probe = torch.linspace(-1, 1, 2 * len(mark)).view(2, 1, -1).to(mark)
    try:
        with torch.no_grad():
            adds = torch.equal(layer(probe), probe + mark)
    except (RuntimeError, TypeError, ValueError):
        return None  # takes something other than tokens
    if not adds:
        return None

    def gradient(_: nn.Module, __: Tensor, grad: Tensor, units: int) -> Tensor:
        return _fold(grad, units, mark.shape)

    return Rule(lambda _, x: x + mark.detach(), {name: gradient})


RULES: Mapping[type[nn.Module], Rule] = {
    nn.Linear: Rule(_linear, {"weight": _linear_weight, "bias": _last_bias}),
    nn.LayerNorm: Rule(_layer_norm, {"weight": _layer_norm_weight, "bias": _last_bias}),
    nn.GroupNorm: Rule(
        _group_norm, {"weight": _group_norm_weight, "bias": _channel_bias}
    ),
    nn.Conv2d: Rule(_conv, {"weight": _conv_weight, "bias": _channel_bias}),
    nn.ConvTranspose2d: Rule(
        _conv_transposed, {"weight": _conv_transposed_weight, "bias": _channel_bias}
    ),
}
