"""How far sites agree on what they see, and with the text mapper.

N images, D vector width. Everything is a centred cosine: sites may differ by a shift and
by a positive scale, which a mapper takes up easily, but not by a rotation.
"""

from collections.abc import Mapping
from itertools import combinations
from statistics import fmean

from torch import Tensor
from torch.nn import functional


def centred_cosine(a: Tensor, b: Tensor) -> float:
    """Mean over images of the cosine of two sets of vectors, in [-1, 1].

    Args:
        a: (N, D), row n from image n.
        b: (N, D), vectors of the same images; each set's own mean is taken off first.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"vectors of shape {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    return functional.cosine_similarity(a - a.mean(0), b - b.mean(0)).mean().item()


def agreement(latents: Mapping[str, Tensor]) -> float:
    """Mean centred cosine over all pairs of sites.

    Args:
        latents: by site, (N, D) of the same N images.

    Returns:
        NaN with fewer than two sites: there is no pair to agree.
    """
    pairs = [centred_cosine(a, b) for a, b in combinations(latents.values(), 2)]
    return fmean(pairs) if pairs else float("nan")


def mapper_agreement(mapped: Tensor, latents: Mapping[str, Tensor]) -> float:
    """Mean centred cosine over sites of the mapper's vectors and the site's latents.

    Args:
        mapped: (N, D), where the mapper puts the captions of N images.
        latents: by site, (N, D) of these images.

    Returns:
        NaN without a site.
    """
    found = [centred_cosine(mapped, seen) for seen in latents.values()]
    return fmean(found) if found else float("nan")
