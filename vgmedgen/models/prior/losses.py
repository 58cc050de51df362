"""Loss terms of the visual prior: pure, and one value per sample.

Source: VG-MedGen, arXiv 2603.10519; the anchor is ours.
"""

from monai.losses import DiceLoss
from torch import Tensor, where
from torch.nn import functional

from vgmedgen.models.prior.model import VisualPrior


def reconstruction(painted: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference (B,) of images (B, 3, H, W)."""
    return (painted - image).abs().flatten(1).mean(1)


def dice(mask_logits: Tensor, mask: Tensor) -> Tensor:
    """Dice loss (B,) in [0, 1] of logits against masks of 0 and 1, both (B, 1, H, W).

    Where a mask is empty the overlap is zero whatever is predicted, and Dice would teach
    next to nothing: there the loss is the share of the image that is called lesion.
    """
    overlap = DiceLoss(sigmoid=True, reduction="none")(mask_logits, mask).flatten()
    called_lesion = mask_logits.sigmoid().flatten(1).mean(1)
    return where(mask.flatten(1).any(1), overlap, called_lesion)


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence (B,) in nats of N(mean, exp(logvar)) from N(0, 1), summed over S.

    Source: Kingma and Welling 2014, arXiv 1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def style_regression(prior: VisualPrior, maps: Tensor, drawn: Tensor) -> Tensor:
    """How far a style is from what is read back from a picture painted in it.

    Args:
        prior: paints and reads.
        maps: (B, K, H, W); no gradient goes to them, they are not to carry the style.
        drawn: (B, S), styles drawn from N(0, 1).

    Returns:
        (B,): mean absolute difference.
    """
    fixed = maps.detach()
    read, _ = prior.style_encoder(fixed, prior.decoder(fixed, drawn))
    missed: Tensor = (read - drawn).abs().mean(1)
    return missed


def anchor(
    anatomy: Tensor, style: Tensor, anatomy_target: Tensor, style_target: Tensor
) -> Tensor:
    """Pull (B,) in [0, 4] of both vectors to the directions that the text asks for.

    One minus the cosine, for (B, A) and for (B, S); no gradient goes to the targets.
    """
    away_anatomy = 1 - functional.cosine_similarity(anatomy, anatomy_target.detach())
    away_style = 1 - functional.cosine_similarity(style, style_target.detach())
    return away_anatomy + away_style
