"""Installing: rebuilt from tensors, whole or not at all, and never quietly older."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.releases import KEY, TRUSTED, contents, make, scratch, unchanged
from vgmedgen.errors import PolicyError, ReleaseError, StateError, TrustError
from vgmedgen.files import write_text
from vgmedgen.release import install as installing
from vgmedgen.release import pipeline
from vgmedgen.release.archive import pack
from vgmedgen.release.install import current, install, install_from
from vgmedgen.release.signature import FILE, Signature, sign
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest, manifest_json, parts_of, verify
from vgmedgen.trust.signing import SigningKey

REFUSED = (ReleaseError, TrustError, PolicyError)


@pytest.fixture
def release(new_release, tmp_path):
    """A copy of the later release that the test may write."""
    return shutil.copytree(new_release.folder, tmp_path / "carried")


def in_run(releases, bundle, plan, made, **changes):
    told = {
        "weights": made.weights,
        "told": made.manifest,
        "signature": made.signature,
    } | changes
    return install(releases, bundle, plan, **told)


def test_in_a_run_and_carried_a_site_ends_with_the_same_bytes(
    bundle, micro, new_release, tmp_path
):
    pack(new_release.folder, tmp_path / "r.vgrel")
    ways = {
        "run": lambda to: in_run(to, bundle, micro.plan, new_release),
        "folder": lambda to: install_from(to, bundle, new_release.folder, TRUSTED),
        "file": lambda to: install_from(to, bundle, tmp_path / "r.vgrel", TRUSTED),
    }
    found = []
    for way, how in ways.items():
        assert how(tmp_path / way) == digest(new_release.manifest)
        one = Store(tmp_path / way).current()
        assert contents(one.release) == contents(new_release.folder)
        assert not scratch(tmp_path / way)
        found.append(contents(one.pipeline))
    assert found[0] == found[1] == found[2]


def test_an_installed_release_is_a_pipeline_that_needs_nothing_else(
    bundle, releases, old_release
):
    from vgmedgen.synthesis.pipeline import VGMedGenPipeline

    folder = current(releases)
    pipeline = VGMedGenPipeline.from_pretrained(folder)
    (image,) = pipeline("a lesion", seeds=[3], num_inference_steps=2).images
    assert image.size == (bundle.image_px, bundle.image_px)
    assert type(pipeline.visual_prior).__name__ == "VisualPrior"
    assert json.loads((folder / "release.json").read_text()) == old_release.manifest
    own = contents(bundle.part("visual_prior"))
    assert contents(folder / "visual_prior") == own  # the public one


def test_an_installed_pipeline_draws_as_the_models_of_the_run(
    bundle, micro, releases, old_release
):
    import torch

    from vgmedgen.models.generator import Generator
    from vgmedgen.training.rounds import Workbench

    bench = Workbench.open(bundle, micro.plan, torch.device("cpu"))
    bench.take(old_release.weights)
    merged = Generator.load(current(releases))
    vectors = torch.randn(2, 8), torch.randn(2, 8)
    latents = torch.randn(2, *merged.latent_shape)
    with torch.no_grad():
        ask = latents, torch.tensor([10, 500]), *vectors
        theirs = merged.eval().predict(*ask)
        ours = bench.generator.eval().predict(*ask)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_releases_lie_side_by_side_and_the_last_one_is_in_use(
    bundle, micro, releases, old_release, new_release
):
    in_run(releases, bundle, micro.plan, new_release)
    store = Store(releases)
    assert [one.run for one in store.all()] == ["r-new", "r-old"]
    assert store.current().run == "r-new"
    assert store.current().coordinator == KEY.public
    assert store.current().created == "2026-01-02T03:04:05Z"
    assert store.roll_back().digest == digest(old_release.manifest)


def test_a_flipped_byte_in_any_file_is_refused(bundle, releases, old_release, release):
    draw = np.random.default_rng(1)
    files = contents(release)
    assert len(files) == 10
    for name, held in files.items():
        for place in (0, len(held) // 2, len(held) - 1):
            flipped = bytearray(held)
            flipped[place] ^= 1 << int(draw.integers(8))
            (release / name).write_bytes(flipped)
            with pytest.raises(REFUSED):
                install_from(releases, bundle, release, TRUSTED)
        (release / name).write_bytes(held)
    assert unchanged(releases, old_release)


def test_a_flipped_byte_anywhere_in_the_one_file_is_refused(
    bundle, releases, old_release, new_release, tmp_path
):
    path = tmp_path / "r.vgrel"
    pack(new_release.folder, path)
    held = path.read_bytes()
    draw = np.random.default_rng(2)
    size = len(held)
    places = {*draw.integers(size, size=60), *range(30), *range(size - 60, size)}
    for place in places:
        flipped = bytearray(held)
        flipped[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ReleaseError):
            install_from(releases, bundle, path, TRUSTED)
    assert unchanged(releases, old_release)


def test_who_is_not_trusted_installs_nothing(bundle, releases, old_release, release):
    with pytest.raises(PolicyError, match=r"policy\.coordinators in site\.yaml"):
        install_from(releases, bundle, release, [])
    with pytest.raises(PolicyError, match="does not list"):
        install_from(releases, bundle, release, [SigningKey.make().public])
    (release / FILE).unlink()
    with pytest.raises(PolicyError, match="not signed"):
        install_from(releases, bundle, release, TRUSTED)
    assert unchanged(releases, old_release)


def test_a_signature_of_another_release_or_moment_is_refused(
    bundle, micro, releases, old_release, new_release, release
):
    (release / FILE).write_text(old_release.signature.to_json())
    with pytest.raises(ReleaseError, match="is that of release"):
        install_from(releases, bundle, release, TRUSTED)
    with pytest.raises(ReleaseError, match="is that of release"):
        in_run(
            releases, bundle, micro.plan, new_release, signature=old_release.signature
        )
    later = dataclasses.replace(new_release.signature, created="2027-01-02T03:04:05Z")
    (release / FILE).write_text(later.to_json())
    with pytest.raises(TrustError, match="did not sign"):
        install_from(releases, bundle, release, TRUSTED)
    with pytest.raises(TrustError, match="did not sign"):
        in_run(releases, bundle, micro.plan, new_release, signature=later)
    assert unchanged(releases, old_release)


def signed_anew(release, manifest):
    """What a coordinator that lies could sign."""
    (release / "manifest.json").write_text(manifest_json(manifest))
    from datetime import UTC, datetime

    signed: Signature = sign(manifest, KEY, datetime(2026, 5, 1, tzinfo=UTC))
    (release / FILE).write_text(signed.to_json())


def test_no_config_of_a_signed_release_is_used(
    bundle, releases, old_release, new_release, release
):
    path = release / "adapter" / "adapter_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "auto_mapping": {"parent_library": "evil"}}))
    signed_anew(release, {**new_release.manifest, "files": parts_of(release)})
    verify(release, bundle)  # it is whole, and signed
    with pytest.raises(ReleaseError, match="files differ"):
        install_from(releases, bundle, release, TRUSTED)
    assert unchanged(releases, old_release)


def test_a_signed_release_with_a_file_more_is_refused(
    bundle, releases, old_release, new_release, release
):
    (release / "further.json").write_text("{}")
    signed_anew(release, {**new_release.manifest, "files": parts_of(release)})
    verify(release, bundle)
    with pytest.raises(ReleaseError, match="files differ"):
        install_from(releases, bundle, release, TRUSTED)
    assert unchanged(releases, old_release)


def test_a_release_for_another_base_is_refused(
    bundle, micro, releases, old_release, new_release
):
    other = dataclasses.replace(bundle, manifest={**bundle.manifest, "seed": 99})
    with pytest.raises(ReleaseError, match="was made for base"):
        install_from(releases, other, new_release.folder, TRUSTED)
    with pytest.raises(ReleaseError, match=r"\(base, files differ"):
        in_run(releases, other, micro.plan, new_release)
    assert unchanged(releases, old_release)


def test_weights_that_the_manifest_does_not_describe_are_refused(
    bundle, micro, releases, old_release, new_release
):
    mapper = {n: a * np.float32(1.01) for n, a in new_release.weights["mapper"].items()}
    weights = {**new_release.weights, "mapper": mapper}
    with pytest.raises(ReleaseError, match="files differ"):
        in_run(releases, bundle, micro.plan, new_release, weights=weights)
    assert unchanged(releases, old_release)


@pytest.mark.parametrize(
    "facts",
    [
        {"run": "demo\n# Approved for diagnosis"},
        {"sites": ["![](https://tracker.example/x)"]},
        {"privacy": {"epsilon": 0.01, "delta": 1e-9, "unit": "patient", "spent": {}}},
        {"approved": True},
        {"rounds": 99},
    ],
)
def test_a_manifest_that_says_what_is_not_so_is_refused_before_anything_is_made(
    bundle, micro, new_release, tmp_path, facts
):
    told = {**new_release.manifest, **facts}
    with pytest.raises(ReleaseError, match="nothing was installed"):
        in_run(
            tmp_path / "r", bundle, micro.plan, new_release, told=told, signature=None
        )
    assert not (tmp_path / "r").exists()


def test_an_older_release_is_installed_only_on_request(
    bundle, micro, releases, old_release, new_release
):
    install_from(releases, bundle, new_release.folder, TRUSTED)
    Store(releases).remove(digest(old_release.manifest))
    with pytest.raises(
        ReleaseError, match=r"2025-01-02.*2026-01-02.*--allow-downgrade"
    ):
        install_from(releases, bundle, old_release.folder, TRUSTED)
    assert Store(releases).current().run == "r-new"
    assert len(Store(releases).all()) == 1
    install_from(releases, bundle, old_release.folder, TRUSTED, allow_downgrade=True)
    assert Store(releases).current().run == "r-old"
    install_from(releases, bundle, new_release.folder, TRUSTED)
    assert Store(releases).current().run == "r-new"


def test_a_message_that_comes_again_does_not_undo_what_the_site_chose(
    bundle, micro, releases, old_release, new_release
):
    name = in_run(releases, bundle, micro.plan, new_release)
    Store(releases).roll_back()
    assert in_run(releases, bundle, micro.plan, new_release) == name
    assert Store(releases).current().run == "r-old"


def test_an_older_release_that_arrives_late_lies_beside_the_one_in_use(
    bundle, micro, old_release, new_release, tmp_path
):
    releases = tmp_path / "releases"
    in_run(releases, bundle, micro.plan, new_release)
    assert in_run(releases, bundle, micro.plan, old_release) == digest(
        old_release.manifest
    )
    unsigned = make(tmp_path / "u", bundle, micro.plan, run="r-unsigned", seed=4)
    in_run(releases, bundle, micro.plan, unsigned, signature=None)
    store = Store(releases)
    assert store.current().run == "r-new"
    assert {one.run for one in store.all()} == {"r-new", "r-old", "r-unsigned"}


def test_a_damaged_installation_is_made_anew(bundle, micro, releases, old_release):
    store = Store(releases)
    path = store.current().pipeline / "transformer" / "config.json"
    held = path.read_bytes()
    path.write_bytes(held + b" ")
    with pytest.raises(ReleaseError, match=r"pipeline/transformer/config\.json"):
        store.verify(store.current().name)
    in_run(releases, bundle, micro.plan, old_release)
    assert path.read_bytes() == held
    assert unchanged(releases, old_release)


def test_a_source_that_is_not_there_is_told(bundle, releases, old_release, tmp_path):
    with pytest.raises(ReleaseError, match="there is no release"):
        install_from(releases, bundle, tmp_path / "none", TRUSTED)
    with pytest.raises(ReleaseError, match="no release"):
        install_from(releases, bundle, tmp_path, TRUSTED)
    assert unchanged(releases, old_release)


@pytest.mark.parametrize("step", ["merge", "describe", "settle", "announce", "point"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_step_that_fails_leaves_the_earlier_release_in_use(
    bundle, micro, releases, old_release, new_release, monkeypatch, step, kind
):
    def fails(*_: object, **__: object) -> None:
        raise kind(28, "No space left on device")

    owner = {"merge": pipeline, "announce": Store, "point": Store}
    with monkeypatch.context() as patch:
        patch.setattr(owner.get(step, installing), step, fails)
        wanted = StateError if kind is OSError else kind
        with pytest.raises(wanted, match="No space"):
            in_run(releases, bundle, micro.plan, new_release)
    assert unchanged(releases, old_release)
    in_run(releases, bundle, micro.plan, new_release)
    assert Store(releases).current().run == "r-new"


def test_what_a_killed_installation_announced_is_finished_or_forgotten(
    bundle, micro, releases, old_release, new_release
):
    name = in_run(releases, bundle, micro.plan, new_release)[:16]
    store = Store(releases)
    before = digest(old_release.manifest)[:16]
    for announced, there in ((name, name), ("f" * 16, before), ("junk", before)):
        write_text(releases / "current", before)
        write_text(releases / "next", announced)
        (releases / ".new-left").mkdir()
        with store.alone():
            assert store.current().name == there
        assert not scratch(releases)


def test_files_are_for_the_site_alone(bundle, new_release, tmp_path):
    install_from(tmp_path / "deep" / "releases", bundle, new_release.folder, TRUSTED)
    assert (tmp_path / "deep" / "releases").stat().st_mode & 0o077 == 0
