"""A release: rebuilt to the byte, verified to the byte, installed whole or not at all."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel
from peft import PeftModel

from vgmedgen.base import Bundle
from vgmedgen.errors import ReleaseError
from vgmedgen.release import install as installing
from vgmedgen.release.install import current, install, install_folder
from vgmedgen.release.verify import digest, verify
from vgmedgen.release.write import write
from vgmedgen.training.rounds import Workbench

FACTS = {
    "run": "r-1",
    "experiment": "demo",
    "config": "c" * 64,
    "rounds": 4,
    "align_rounds": 2,
    "generate_rounds": 2,
    "sites": ["a", "b"],
}


@pytest.fixture(scope="module")
def weights(bundle: Bundle, micro):
    """Weights that differ from the base everywhere."""
    states = Workbench.open(bundle, micro.plan, torch.device("cpu")).states()
    draw = np.random.default_rng(0)
    return {
        group: {
            name: (a + 0.1 * draw.standard_normal(a.shape)).astype(np.float32)
            for name, a in arrays.items()
        }
        for group, arrays in states.items()
    }


@pytest.fixture
def release(bundle: Bundle, micro, weights, tmp_path):
    folder = tmp_path / "release"
    write(folder, bundle, micro.plan, weights, FACTS)
    return folder


def test_two_writers_of_one_release_agree_to_the_byte(
    release, bundle, micro, weights, tmp_path
):
    again = write(tmp_path / "other", bundle, micro.plan, weights, FACTS)
    assert again == verify(release, bundle)


def test_peft_and_diffusers_alone_load_the_adapter(release, bundle, micro, weights):
    plain = PixArtTransformer2DModel.from_pretrained(bundle.part("transformer"))
    loaded = PeftModel.from_pretrained(plain, release / "adapter").eval()
    bench = Workbench.open(bundle, micro.plan, torch.device("cpu"))
    bench.take(weights)
    side = micro.model.image_px // 8
    latents = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    tokens = torch.ones(2, 2, micro.model.caption_width)
    time = torch.tensor([10, 500])
    told = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        ours = bench.generator.eval().denoise(latents, time, tokens)
        theirs = loaded(
            latents,
            encoder_hidden_states=tokens,
            timestep=time,
            added_cond_kwargs=told,
        ).sample
    torch.testing.assert_close(theirs, ours)


def test_an_installed_release_is_a_pipeline_that_needs_nothing_else(
    release, bundle, tmp_path
):
    from vgmedgen.synthesis.pipeline import VGMedGenPipeline

    name = install_folder(tmp_path / "releases", bundle, release)
    assert name == digest(verify(release))
    pipeline = VGMedGenPipeline.from_pretrained(current(tmp_path / "releases"))
    (image,) = pipeline("a lesion", seeds=[3], num_inference_steps=2).images
    assert image.size == (bundle.image_px, bundle.image_px)


def test_a_flipped_byte_in_any_part_is_refused_by_name(release, bundle, tmp_path):
    listed = sorted(json.loads((release / "manifest.json").read_text())["files"])
    assert len(listed) >= 6
    for name in listed:
        path = release / name
        held = path.read_bytes()
        flipped = bytearray(held)
        flipped[len(held) // 2] ^= 1
        path.write_bytes(bytes(flipped))
        with pytest.raises(ReleaseError, match=name.replace(".", r"\.")):
            install_folder(tmp_path / "releases", bundle, release)
        path.write_bytes(held)
    assert not (tmp_path / "releases" / "current").exists()


def test_a_release_for_another_base_is_refused(release, bundle, tmp_path):
    other = dataclasses.replace(bundle, manifest={**bundle.manifest, "seed": 99})
    with pytest.raises(ReleaseError, match="was made for base"):
        install_folder(tmp_path / "releases", other, release)


def test_weights_that_the_manifest_does_not_describe_are_refused(
    release, bundle, micro, weights, tmp_path
):
    told = verify(release)
    releases = tmp_path / "site"
    assert install(releases, bundle, micro.plan, weights, told) == digest(told)
    changed = {**weights, "mapper": {n: a * 1.01 for n, a in weights["mapper"].items()}}
    with pytest.raises(ReleaseError, match="files differ"):
        install(releases, bundle, micro.plan, changed, told)
    assert current(releases).is_dir()
    assert not list(releases.glob(".new-*"))


def test_an_install_that_dies_leaves_the_earlier_release_in_use(
    release, bundle, micro, weights, tmp_path, monkeypatch
):
    releases = tmp_path / "site"
    first = install_folder(releases, bundle, release)
    other = tmp_path / "second"
    write(other, bundle, micro.plan, weights, {**FACTS, "run": "r-2"})

    def dies(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(installing, "_pipeline", dies)
    with pytest.raises(OSError, match="No space"):
        install_folder(releases, bundle, other)
    assert current(releases).parent.name == first[:16]
    assert not list(releases.glob(".new-*"))


def test_a_folder_that_is_no_release_and_a_damaged_manifest_are_told_apart(
    release, tmp_path
):
    with pytest.raises(ReleaseError, match="no release"):
        verify(tmp_path / "nothing")
    (release / "manifest.json").write_text('{"files": 3}')
    with pytest.raises(ReleaseError, match="damaged"):
        verify(release)
    with pytest.raises(ReleaseError, match="no installed release"):
        current(tmp_path)


def test_no_path_of_this_machine_is_in_a_release(release, bundle):
    shutil.rmtree(release / "nothing", ignore_errors=True)
    for path in release.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(bundle.folder).encode() not in content
            assert str(release.parent).encode() not in content


@pytest.mark.parametrize(
    "facts",
    [
        {"privacy": {"epsilon": 0.01, "delta": 1e-9, "unit": "patient", "spent": {}}},
        {"experiment": "<script>alert(1)</script>"},
        {"run": "demo\n# Approved for diagnosis"},
        {"sites": ["![](https://tracker.example/x)"]},
    ],
)
def test_a_release_whose_card_would_say_what_is_not_so_is_refused(
    release, bundle, micro, weights, tmp_path, facts
):
    told = {**verify(release), **facts}
    with pytest.raises(ReleaseError, match="nothing was installed"):
        install(tmp_path / "releases", bundle, micro.plan, weights, told)
    assert not (tmp_path / "releases").exists()


def test_a_release_must_claim_what_its_plan_promised(
    release, bundle, private_micro, weights, tmp_path
):
    ask = private_micro.plan.privacy
    right = {"epsilon": ask.epsilon, "delta": ask.delta, "unit": ask.unit}
    for claim in (None, {}, right | {"epsilon": 0.1}, right | {"unit": "patient"}):
        told = {**verify(release), "privacy": claim}
        with pytest.raises(ReleaseError, match="another privacy"):
            install(tmp_path / "releases", bundle, private_micro.plan, weights, told)
