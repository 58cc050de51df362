import json
from dataclasses import replace

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from tests.builders import MICRO as SMALLEST
from tests.builders import awake
from vgmedgen.config.run import ModelConfig
from vgmedgen.models import lora
from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import HFFM

MICRO = replace(SMALLEST, dit_layers=2)


@pytest.fixture
def generator():
    return awake(Generator.build(MICRO, seed=1))


def inputs(count=3, side=4):
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(count, 4, side, side, generator=draw)
    timesteps = torch.randint(1000, (count,), generator=draw)
    anatomy = torch.randn(count, 6, generator=draw)
    return latents, timesteps, anatomy, torch.randn(count, 5, generator=draw)


def test_the_prediction_has_the_shape_of_the_latents(generator):
    assert generator.latent_shape == (4, 4, 4)
    assert generator.predict(*inputs()).shape == (3, 4, 4, 4)


def test_the_same_seed_builds_the_same_weights():
    first, again, other = (Generator.build(MICRO, seed=seed) for seed in (1, 1, 2))
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)
    name = "transformer.transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_a_fresh_generator_says_nothing_until_it_is_trained():
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    vectors = torch.ones(2, MICRO.anatomy), torch.ones(2, MICRO.style)
    fresh = Generator.build(MICRO, seed=1)
    predicted = fresh.predict(latents, torch.tensor([3, 900]), *vectors)
    assert not predicted.any()


def test_building_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    awake(Generator.build(MICRO, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_two_passes_agree_even_in_training_mode(generator):
    generator.train()
    first = generator.predict(*inputs())
    torch.testing.assert_close(generator.predict(*inputs()), first, rtol=0, atol=0)


def test_each_input_changes_the_prediction(generator):
    right = generator.predict(*inputs())
    for place in range(4):
        changed = list(inputs())
        changed[place] = changed[place].roll(1, 0)
        assert not torch.allclose(generator.predict(*changed), right)


def test_a_learned_sigma_is_dropped():
    wide = Generator.build(MICRO, seed=1, learned_sigma=True)
    latents, timesteps, anatomy, style = inputs()
    whole = wide.transformer(
        latents, wide.tokens(anatomy, style), timesteps, return_dict=False
    )[0]
    assert whole.shape[1] == 8
    torch.testing.assert_close(wide.predict(*inputs()), whole[:, :4])


def test_the_1024_px_model_is_told_the_size_of_the_image():
    transformer = PixArtTransformer2DModel(
        num_attention_heads=3,
        attention_head_dim=8,
        cross_attention_dim=24,
        num_layers=1,
        sample_size=128,
        patch_size=2,
        caption_channels=12,
    )
    hffm = HFFM(anatomy_width=6, style_width=5, hidden_width=16, token_width=12)
    generator = Generator(transformer, hffm)
    told = generator._size_condition(torch.zeros(2, 4, 128, 64))
    assert transformer.use_additional_conditions
    assert told["resolution"].tolist() == [[1024, 512]] * 2
    assert told["aspect_ratio"].tolist() == [[2.0]] * 2
    assert generator.predict(*inputs(side=8)).shape == (3, 4, 8, 8)


def test_half_precision_weights_take_and_give_full_precision(generator):
    full = generator.predict(*inputs())
    half = generator.to(torch.bfloat16).predict(*inputs())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


def test_gradients_are_the_same_with_and_without_checkpointing(generator):
    lora.attach(generator, 2, 2, ("to_q", "to_v"), seed=0)
    found = []
    for on in (False, True):
        generator.checkpoint_gradients(on=on)
        generator.train()
        generator.zero_grad(set_to_none=True)
        generator.predict(*inputs()).square().mean().backward()
        found.append([w.grad.clone() for w in lora.parameters(generator).values()])
    assert any(grad.any() for grad in found[0])
    torch.testing.assert_close(found[0], found[1])


def test_saving_and_loading_changes_nothing(generator, tmp_path):
    generator.save(tmp_path / "first")
    again = Generator.load(tmp_path / "first")
    torch.testing.assert_close(
        again.predict(*inputs()),
        generator.predict(*inputs()),
        rtol=0,
        atol=0,
    )
    again.save(tmp_path / "second")
    for part in ("transformer", "hffm"):
        told = json.loads((tmp_path / "second" / part / "config.json").read_text())
        assert str(tmp_path) not in json.dumps(told)
        name = f"{part}/diffusion_pytorch_model.safetensors"
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_generator_with_lora_is_not_saved_as_a_plain_one(generator, tmp_path):
    lora.attach(generator, 2, 2, ("to_q",), seed=0)
    with pytest.raises(ValueError, match="merge"):
        generator.save(tmp_path)


def test_a_pretrained_transformer_is_taken_as_the_start(generator):
    model = ModelConfig(anatomy=9, style=8, caption_width=999)
    started = Generator.build(model, seed=5, pretrained=generator.transformer)
    assert started.transformer is generator.transformer
    assert started.tokens(torch.zeros(1, 9), torch.zeros(1, 8)).shape == (1, 8, 12)
