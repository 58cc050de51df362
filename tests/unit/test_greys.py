"""What a site has in grey is drawn in grey, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.gated import install_base
from tests.pipelines import micro_pipeline
from vgmedgen.data.layouts import LAYOUTS, write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.drawing import Drawer
from vgmedgen.synthesis.greys import Greys, in_grey
from vgmedgen.synthesis.job import Options, model_of, synthesize

BREAST = Ask(number=0, prompt="breast ultrasound image of a mass", seed=1)
SKIN = Ask(number=1, prompt="dermoscopic image of a melanoma", seed=2)
UNTOLD = Ask(number=2, prompt="a round lesion", seed=3)


def site_of(folder, bundle, *modalities, count=24):
    """A site that has drawn images of these modalities."""
    for modality in modalities:
        write_phantoms(modality, folder / modality, count, 7, 48, tint_of(0))
    told = {
        "name": "hospital-a",
        "base": str(bundle.folder.resolve()),
        "sources": [{"dataset": LAYOUTS[m], "root": m} for m in modalities],
        "heldout": 0.5,
        "policy": {"ungated": True},
        "device": "cpu",
    }
    (folder / "site.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(told)))
    return Site(folder)


def paint(path):
    """Put a yellow mark over an image."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.paste((255, 255, 0), (0, 0, image.width, image.height // 2))
    image.save(path)


def is_grey(pixels):
    return bool((pixels == pixels[..., :1]).all())


@pytest.mark.parametrize(
    ("modalities", "grey", "drawn_grey"),
    [
        (["ultrasound"], {"ultrasound"}, [True, True, True]),
        (["dermoscopy"], set(), [False, False, False]),
        # at a site of several an image's own words tell which it is
        (["dermoscopy", "ultrasound"], {"ultrasound"}, [True, False, False]),
    ],
)
def test_an_image_is_grey_where_the_site_s_own_of_its_kind_are(
    modalities, grey, drawn_grey, bundle, tmp_path
):
    greys = Greys.of(site_of(tmp_path, bundle, *modalities))
    assert greys.grey == grey
    assert greys.among == set(modalities)
    assert [greys(ask) for ask in (BREAST, SKIN, UNTOLD)] == drawn_grey


def test_marks_in_colour_on_a_few_images_change_nothing(bundle, tmp_path):
    site = site_of(tmp_path, bundle, "ultrasound", count=30)
    first, *others = site.datasets[0].records
    paint(first.image)
    assert Greys.of(Site(tmp_path)).grey == {"ultrasound"}
    for record in others[:3]:
        paint(record.image)
    assert Greys.of(Site(tmp_path)).grey == set()


def test_only_the_colour_goes_and_the_mask_is_of_what_is_left():
    pipeline = micro_pipeline()
    told = {"steps": 2, "guidance": 1.5, "masks": True}
    asks = [BREAST, SKIN]
    plain = list(Drawer(pipeline, **told).draw(asks))
    grey = list(Drawer(pipeline, **told, grey=lambda ask: ask == BREAST).draw(asks))
    assert not is_grey(plain[0].pixels)
    assert np.array_equal(grey[0].pixels, in_grey(plain[0].pixels))
    assert is_grey(grey[0].pixels)
    assert np.array_equal(grey[1].pixels, plain[1].pixels)
    again = pipeline.masks_of(grey[0].pixels[None])[0]
    assert np.array_equal(grey[0].mask, again)


def test_grey_pixels_stay_as_they_are():
    grey = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    grey = np.repeat(grey, 3, axis=2)
    assert np.array_equal(in_grey(grey), grey)


def test_a_job_at_a_site_of_ultrasound_writes_grey_files(bundle, micro, tmp_path):
    site = site_of(tmp_path, bundle, "ultrasound")
    install_base(site, micro.plan)
    options = Options(steps=2, gate=False)
    asks = [replace(BREAST, number=n, seed=n) for n in range(2)]
    done = synthesize(site, model_of(site), asks, tmp_path / "out", options)
    for path in done.kept:
        with Image.open(path) as opened:
            assert is_grey(np.asarray(opened.convert("RGB")))
    assert len(done.kept) == 2
