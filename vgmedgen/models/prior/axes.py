"""The axes that turn pooled maps into anatomy vectors.

N images, F pooled features, A anatomy width.
"""

import torch
from torch import Tensor


def random_axes(features: int, width: int, generator: torch.Generator) -> Tensor:
    """Axes before anything is fitted: orthonormal as far as the shape allows.

    Args:
        features: F.
        width: A.
        generator: of the draw.

    Returns:
        (F, A) of torch's default type; columns beyond F are zero.
    """
    # a model that loads in half makes half the default, in which there is no QR
    square = torch.randn(features, features, generator=generator, dtype=torch.float32)
    basis, triangle = torch.linalg.qr(square)
    # without the signs the directions would not be uniform, nor alike on all machines
    axes = _of_width(basis * triangle.diagonal().sign(), width)
    return axes.to(torch.get_default_dtype())


def principal_axes(pooled: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Centre and scaled principal axes of pooled maps.

    All axes share one scale, so that directions which vary more keep their weight: a
    lesion's place and size count for more than the noise of its border.

    Args:
        pooled: (N, F) of public images.
        width: A. Axes beyond the F that exist are zero.

    Returns:
        centre (F,) and axes (F, A): `(pooled - centre) @ axes` has mean zero and unit
        mean square, averaged over images and components.

    Raises:
        ValueError: if the pooled maps do not vary at all.
    """
    exact = pooled.double()
    centre = exact.mean(0)
    centred = exact - centre
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(exact))
    leading = vectors.flip(1)  # eigh sorts upwards
    largest = leading.gather(0, leading.abs().argmax(0, keepdim=True))
    axes = _of_width(leading * largest.sign(), width)
    power = (centred @ axes).square().mean()
    if not power > 0:
        raise ValueError(
            f"the {len(pooled)} pooled maps are all equal: no axes in them"
        )
    return centre.to(pooled), (axes / power.sqrt()).to(pooled)


def _of_width(basis: Tensor, width: int) -> Tensor:
    features = basis.shape[0]
    filler = basis.new_zeros(features, max(0, width - features))
    return torch.cat((basis[:, :width], filler), 1).contiguous()
