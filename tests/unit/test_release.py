"""A release: the same bytes wherever it is written, and readable back to its tensors."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from tests.releases import FACTS, contents, make
from vgmedgen.errors import ReleaseError, TrustError
from vgmedgen.models.hffm import HFFM
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.release.archive import pack, unpack
from vgmedgen.release.facts import RANGES, range_of
from vgmedgen.release.verify import digest, verify
from vgmedgen.release.weights import weights_of
from vgmedgen.release.write import write
from vgmedgen.training.rounds import Workbench

PARTS = {
    "README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "hffm_adapter/adapter_config.json",
    "hffm_adapter/adapter_model.safetensors",
    "plan.json",
    "text_mapper/config.json",
    "text_mapper/diffusion_pytorch_model.safetensors",
}


@pytest.fixture(scope="module")
def made(bundle, micro, tmp_path_factory):
    """A signed release; read it, do not write."""
    return make(tmp_path_factory.mktemp("made") / "release", bundle, micro.plan)


@pytest.fixture
def release(made, tmp_path):
    """A copy of it that the test may write."""
    return shutil.copytree(made.folder, tmp_path / "release")


def rewrite(release, bundle, plan, made, **facts):
    told = {name: made.manifest[name] for name in FACTS} | facts
    told = {name: fact for name, fact in told.items() if fact is not None}
    return write(release, bundle, plan, made.weights, told)


def test_a_release_holds_its_parts_and_nothing_else(made):
    files = contents(made.folder)
    assert set(files) == PARTS | {"manifest.json", "signature.json"}
    assert set(made.manifest["files"]) == PARTS


def test_two_writers_of_one_release_agree_to_the_byte(made, bundle, micro, tmp_path):
    again = write(tmp_path / "other", bundle, micro.plan, made.weights, FACTS)
    assert again == made.manifest == verify(made.folder, bundle)
    signed = contents(made.folder)
    del signed["signature.json"]
    assert contents(tmp_path / "other") == signed


def test_what_is_read_back_writes_the_same_release(made, bundle, micro, tmp_path):
    read = weights_of(made.folder, bundle, micro.plan)
    for group, arrays in made.weights.items():
        assert set(read[group]) == set(arrays)
        for name, array in arrays.items():
            assert np.array_equal(read[group][name], array)
    again = write(tmp_path / "other", bundle, micro.plan, read, FACTS)
    assert digest(again) == digest(made.manifest)


def test_weights_are_rounded_to_what_a_message_carries(made, bundle, micro, tmp_path):
    finer = {
        group: {name: array * np.float32(1 + 1e-6) for name, array in arrays.items()}
        for group, arrays in made.weights.items()
    }
    assert write(tmp_path / "r", bundle, micro.plan, finer, FACTS) == made.manifest


def test_peft_and_diffusers_alone_load_the_adapters(made, bundle, micro):
    plain = PixArtTransformer2DModel.from_pretrained(bundle.part("transformer"))
    loaded = PeftModel.from_pretrained(plain, made.folder / "adapter").eval()
    bench = Workbench.open(bundle, micro.plan, torch.device("cpu"))
    bench.take(made.weights)
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
        hffm = HFFM.from_pretrained(bundle.part("hffm"))
        vectors = torch.randn(3, 8), torch.randn(3, 8)
        before = hffm(*vectors)
        adapted = PeftModel.from_pretrained(hffm, made.folder / "hffm_adapter")
        torch.testing.assert_close(adapted(*vectors), bench.generator.tokens(*vectors))
        assert not torch.allclose(adapted(*vectors), before)
    mapper = TextMapper.from_pretrained(made.folder / "text_mapper").state_dict()
    for name, weight in bench.mapper.state_dict().items():
        assert torch.equal(weight, mapper[name])


def test_a_run_that_leaves_the_hffm_alone_has_no_adapter_of_it(
    bundle, private_micro, tmp_path
):
    claim = {"epsilon": 6.0, "delta": 1e-5, "unit": "image", "spent": {"b": 1, "a": 2}}
    told = {k: v for k, v in FACTS.items() if k != "metrics"} | {"privacy": claim}
    plan = private_micro.plan
    assert not plan.generate.hffm
    bench = Workbench.open(bundle, plan, torch.device("cpu"))
    manifest = write(tmp_path / "r", bundle, plan, bench.states(), told, bench)
    assert not any(name.startswith("hffm") for name in manifest["files"])
    assert verify(tmp_path / "r") == manifest
    read = weights_of(tmp_path / "r", bundle, plan, bench)
    assert set(read["lora"]) == set(bench.states()["lora"])
    shutil.copytree(tmp_path / "r" / "adapter", tmp_path / "r" / "hffm_adapter")
    with pytest.raises(ReleaseError, match="trained no such part"):
        weights_of(tmp_path / "r", bundle, plan, bench)


@pytest.mark.parametrize("part", ["adapter", "hffm_adapter", "text_mapper"])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("missing", "is missing"),
        ("unknown", "is unknown"),
        ("shape", "has shape"),
        ("infinite", "not finite"),
        ("fine", "no run exchanges"),
        ("type", "no run exchanges"),
        ("pickle", "no safetensors"),
        ("gone", "is missing"),
    ],
)
def test_tensors_that_no_run_exchanges_are_refused(
    release, bundle, micro, part, spoil, why
):
    (path,) = (release / part).glob("*.safetensors")
    held = load_file(path)
    name = next(n for n in sorted(held) if n not in ("centre", "scale", "decoder"))
    if spoil == "missing":
        del held[name]
    elif spoil == "unknown":
        held["further"] = held[name]
    elif spoil == "shape":
        held[name] = np.zeros((*held[name].shape, 1), np.float32)
    elif spoil == "infinite":
        held[name] = np.full_like(held[name], np.nan)
    elif spoil == "fine":
        held[name] = held[name] + np.float32(1e-7)
    elif spoil == "type":
        held[name] = held[name].astype(np.float64)
    save_file(held, path)
    if spoil == "pickle":
        torch.save(held, path)
    elif spoil == "gone":
        path.unlink()
    with pytest.raises(ReleaseError, match=why):
        weights_of(release, bundle, micro.plan)


def test_a_flipped_byte_anywhere_in_a_file_is_refused(release):
    draw = np.random.default_rng(0)
    files = contents(release)
    assert len(files) == 10
    for name, held in files.items():
        places = {0, len(held) // 2, len(held) - 1, *draw.integers(len(held), size=20)}
        for place in places:
            flipped = bytearray(held)
            flipped[place] ^= 1 << int(draw.integers(8))
            (release / name).write_bytes(flipped)
            with pytest.raises((ReleaseError, TrustError)):
                verify(release)
        (release / name).write_bytes(held)
    verify(release)


def test_every_byte_of_manifest_plan_and_signature_counts(release):
    every = {"manifest.json": 23, "plan.json": 11, "signature.json": 3}
    for name, step in every.items():
        held = (release / name).read_bytes()
        for place in range(0, len(held), step):
            byte = held[place]
            (release / name).write_bytes(
                held[:place] + bytes([byte ^ 1]) + held[place + 1 :]
            )
            with pytest.raises((ReleaseError, TrustError)):
                verify(release)
        (release / name).write_bytes(held)
    verify(release)


def test_a_file_more_or_less_and_a_link_are_refused(release, tmp_path):
    (release / "adapter" / "manifest.json").write_text("{}")  # the name of another
    with pytest.raises(ReleaseError, match=r"adapter/manifest\.json"):
        verify(release)
    (release / "adapter" / "manifest.json").unlink()
    kept = release / "adapter" / "adapter_config.json"
    shutil.move(kept, tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=r"adapter_config\.json"):
        verify(release)
    kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match="no plain file"):
        verify(release)
    kept.unlink()
    os.mkfifo(kept)
    with pytest.raises(ReleaseError, match="no plain file"):
        verify(release)


def test_a_folder_that_is_no_release_and_a_damaged_manifest_are_told_apart(
    release, tmp_path
):
    with pytest.raises(ReleaseError, match="no release"):
        verify(tmp_path / "nothing")
    for text in ('{"files": 3}', "[" * 100_000, "3", ""):
        (release / "manifest.json").write_text(text)
        with pytest.raises(ReleaseError, match="damaged"):
            verify(release)


def test_no_path_and_no_version_of_this_machine_is_in_a_release(made, bundle):
    files = contents(made.folder)
    for name, content in files.items():
        assert str(bundle.folder).encode() not in content
        assert str(made.folder.parent).encode() not in content
        assert name == "text_mapper/config.json" or b"_version" not in content
    # whichever version that names, it is the base's and so the same at every site
    own = (bundle.part("text_mapper") / "config.json").read_bytes()
    assert files["text_mapper/config.json"] == own


def test_units_are_told_as_ranges():
    assert [range_of(n) for n in (1, 4, 5, 49, 50, 999, 1000, 10**6)] == [
        "1-4",
        "1-4",
        "5-9",
        "20-49",
        "50-99",
        "500-999",
        "1000+",
        "1000+",
    ]
    assert len(RANGES) == 9
    with pytest.raises(ValueError, match="no range"):
        range_of(0)


@pytest.mark.parametrize(
    "facts",
    [
        {"experiment": "<script>alert(1)</script>"},
        {"experiment": "a\n"},
        {"run": "demo\n# Approved for diagnosis"},
        {"run": "a`b"},
        {"sites": ["![](https://tracker.example/x)"]},
        {"sites": ["b", "a"]},
        {"sites": ["a", "a"]},
        {"sites": []},
        {"sites": "ab"},
        {"sites": [{}]},
        {"config": "C" * 64},
        {"config": None},
        {"data": {"a": "37"}},
        {"data": {"c": "20-49"}},
        {"data": {"a": "20-49 | x"}},
        {"data": {"a": []}},
        {"data": "20-49"},
        {"metrics": {"training_loss": float("nan")}},
        {"metrics": {"training_loss": 10**400}},
        {"metrics": {"training_loss": "0.5"}},
        {"metrics": {"training_loss": True}},
        {"metrics": {"accuracy": 0.9}},
        {"metrics": ["0.5"]},
        {"privacy": {"epsilon": 0.01, "delta": 1e-9, "unit": "patient", "spent": {}}},
        {"approved_by": "the ministry"},
        {"<b>": 1},
    ],
)
def test_a_fact_of_another_form_writes_nothing(bundle, micro, made, tmp_path, facts):
    with pytest.raises(ReleaseError, match="nothing was installed"):
        rewrite(tmp_path / "r", bundle, micro.plan, made, **facts)
    assert not list(tmp_path.iterdir())


def test_a_private_release_claims_what_its_plan_promised(
    bundle, private_micro, tmp_path
):
    ask = private_micro.plan.privacy
    weights = Workbench.open(bundle, private_micro.plan, torch.device("cpu")).states()
    right = {"epsilon": ask.epsilon, "delta": ask.delta, "unit": ask.unit, "spent": {}}
    facts = {k: v for k, v in FACTS.items() if k != "metrics"}
    claims = (
        None,
        {},
        right | {"epsilon": 0.1},
        right | {"unit": "patient"},
        right | {"spent": {"a": -1}},
        right | {"spent": {"<i>": 1}},
        right | {"note": "safe"},
    )
    for claim in claims:
        told = facts | {"privacy": claim}
        with pytest.raises(ReleaseError, match="another privacy"):
            write(tmp_path / "r", bundle, private_micro.plan, weights, told)
    told = {**FACTS, "privacy": right}
    with pytest.raises(ReleaseError, match="metrics must not be told"):
        write(tmp_path / "r", bundle, private_micro.plan, weights, told)


def test_a_release_for_another_base_is_refused(made, bundle):
    other = dataclasses.replace(bundle, manifest={**bundle.manifest, "seed": 99})
    with pytest.raises(ReleaseError, match="was made for base"):
        verify(made.folder, other)


def test_one_file_holds_the_same_release(made, tmp_path):
    pack(made.folder, tmp_path / "r.vgrel")
    unpack(tmp_path / "r.vgrel", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made.folder)
    assert verify(tmp_path / "again") == made.manifest


def test_the_manifest_tells_what_it_must(made, bundle, micro):
    told = json.loads((made.folder / "manifest.json").read_text())
    assert told["base"] == bundle.digest
    assert told["plan"] == micro.plan.digest
    assert told["rounds"] == told["align_rounds"] + told["generate_rounds"] == 4
    assert len(told["exchange"]) == 64
    assert told["image_px"] == 32
