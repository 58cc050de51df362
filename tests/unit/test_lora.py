import pytest
import torch
from diffusers import PixArtTransformer2DModel
from peft import PeftModel
from torch import nn

from tests.builders import MICRO, awake
from vgmedgen.errors import ConfigError
from vgmedgen.models import lora
from vgmedgen.models.generator import Generator

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
WIDE = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj", "linear", "linear_1")


@pytest.fixture
def plain():
    return awake(Generator.build(MICRO, seed=1))


@pytest.fixture
def generator():
    return attached()


def attached(seed=7, targets=ATTENTION):
    made = awake(Generator.build(MICRO, seed=1))
    lora.attach(made, 3, 6, targets, seed)
    return made


def disturb(generator, seed=0):
    """Give B values, as training does."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lora.parameters(generator).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))
    return generator


def predict(generator, count=3):
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return generator.predict(
            torch.randn(count, 4, 4, 4, generator=draw),
            torch.randint(1000, (count,), generator=draw),
            torch.randn(count, 6, generator=draw),
            torch.randn(count, 5, generator=draw),
        )


def test_fresh_lora_changes_nothing(plain, generator):
    torch.testing.assert_close(predict(generator), predict(plain), rtol=0, atol=0)


def test_canonical_names_are_stable(generator):
    blocks = [
        f"dit.transformer_blocks.0.{attention}.{layer}.{factor}"
        for attention in ("attn1", "attn2")
        for layer in ("to_k", "to_out.0", "to_q", "to_v")
        for factor in ("A", "B")
    ]
    hffm = [
        f"hffm.{channel}.{layer}.{factor}"
        for channel in ("anatomy", "style")
        for layer in (0, 2)
        for factor in ("A", "B")
    ]
    found = lora.state(generator)
    assert list(found) == [*blocks, *hffm]
    assert found["dit.transformer_blocks.0.attn2.to_k.A"].shape == (3, 16)
    assert found["hffm.anatomy.0.A"].shape == (3, 6)
    assert found["hffm.style.2.B"].shape == (24, 3)


def test_the_same_seed_gives_the_same_a_at_every_site(generator):
    torch.manual_seed(123)
    here, there, elsewhere = map(lora.state, (generator, attached(), attached(seed=8)))
    for name, factor in here.items():
        assert torch.equal(factor, there[name])
        if name.endswith(".B"):
            assert not factor.any()
        else:
            assert not torch.equal(factor, elsewhere[name])


def test_attaching_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    attached()
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_reach_every_factor_and_nothing_else(generator):
    disturb(generator)
    trained = lora.parameters(generator)
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    vectors = torch.ones(3, 6).cumsum(1), torch.ones(3, 5).cumsum(1)
    predicted = generator.predict(latents, torch.tensor([1, 500, 900]), *vectors)
    predicted.square().mean().backward()
    assert all(weight.grad.any() for weight in trained.values())
    with_grad = {id(p) for p in generator.parameters() if p.grad is not None}
    asking = {id(p) for p in generator.parameters() if p.requires_grad}
    assert with_grad == asking == {id(weight) for weight in trained.values()}


def test_what_is_clipped_and_scheduled_is_all_that_trains(generator):
    names = {name.split(".")[0] for name in lora.parameters(generator)}
    trainable = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    assert names == {"dit", "hffm"}
    assert trainable == sum(p.numel() for p in lora.parameters(generator).values())


def test_state_and_load_are_inverse(generator):
    wanted = predict(disturb(generator))
    stored = lora.state(generator)
    disturb(generator, seed=1)
    assert not torch.allclose(predict(generator), wanted)
    lora.load(generator, stored)
    torch.testing.assert_close(predict(generator), wanted, rtol=0, atol=0)
    fresh = attached(seed=99)
    lora.load(fresh, stored)
    torch.testing.assert_close(predict(fresh), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("spoil", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_changes_nothing(generator, spoil):
    before = lora.state(generator)
    bad = {name: factor + 1 for name, factor in before.items()}
    if spoil == "missing":
        del bad["hffm.style.2.B"]
    elif spoil == "unknown":
        bad["hffm.style.4.B"] = torch.zeros(1)
    else:
        bad["hffm.style.2.B"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"hffm\.style\.[24]\.B"):
        lora.load(generator, bad)
    assert all(torch.equal(f, before[n]) for n, f in lora.state(generator).items())


def test_merging_keeps_the_answers_and_leaves_plain_models(generator):
    wanted = predict(disturb(generator))
    lora.merge(generator)
    assert type(generator.transformer) is PixArtTransformer2DModel
    assert not any("lora" in name for name in generator.state_dict())
    torch.testing.assert_close(predict(generator), wanted, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="no LoRA"):
        lora.state(generator)


def test_disabled_lora_answers_as_the_base_does(plain, generator):
    wanted = predict(disturb(generator))
    with lora.disabled(generator):
        torch.testing.assert_close(predict(generator), predict(plain), rtol=0, atol=0)
    torch.testing.assert_close(predict(generator), wanted, rtol=0, atol=0)


def test_the_adapter_folder_needs_only_peft_and_diffusers(plain, generator, tmp_path):
    plain.save(tmp_path)
    disturb(generator)
    lora.save_adapter(generator, tmp_path / "adapter")
    base = PixArtTransformer2DModel.from_pretrained(tmp_path / "transformer")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    latents, tokens = torch.ones(2, 4, 4, 4), torch.ones(2, 4, 12)
    when = torch.tensor([3, 700])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(latents, tokens, when, return_dict=False),
            generator.transformer(latents, tokens, when, return_dict=False),
            rtol=0,
            atol=0,
        )
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_merging_the_adapter_folder_equals_merging_in_place(plain, generator, tmp_path):
    disturb(generator)
    lora.save_adapter(generator, tmp_path)
    merged = lora.merge_adapter(plain.transformer, tmp_path).state_dict()
    lora.merge(generator)
    for name, weight in generator.transformer.state_dict().items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)


def test_the_adapter_folder_has_the_same_bytes_at_every_site(tmp_path):
    for site in ("here", "there"):
        lora.save_adapter(disturb(attached()), tmp_path / site)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        here, there = (tmp_path / site / name for site in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()
        assert str(tmp_path).encode() not in here.read_bytes()


def test_a_wider_list_of_targets_takes_linear_layers_only(plain, tmp_path):
    wide = disturb(attached(targets=WIDE))
    names, wanted = lora.state(wide), predict(wide)
    assert "dit.adaln_single.linear.A" in names
    assert "dit.caption_projection.linear_1.A" in names
    assert not any("pos_embed" in name for name in names)
    assert isinstance(wide.transformer.get_base_model().pos_embed.proj, nn.Conv2d)
    lora.save_adapter(wide, tmp_path)
    merged = lora.merge_adapter(plain.transformer, tmp_path)
    lora.merge(wide)
    wide.transformer = merged
    torch.testing.assert_close(predict(wide), wanted, rtol=0, atol=1e-5)


def test_a_target_that_names_no_layer_is_refused(plain):
    with pytest.raises(ConfigError, match="to_query"):
        lora.attach(plain, 3, 3, ("to_q", "to_query"), seed=0)
    assert isinstance(plain.transformer, PixArtTransformer2DModel)
