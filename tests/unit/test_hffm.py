import pytest
import torch

from vgmedgen.models.hffm import HFFM, null_condition


@pytest.fixture
def hffm():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return HFFM(
            anatomy_width=6,
            style_width=5,
            hidden_width=16,
            tokens_per_channel=3,
            token_width=12,
        )


def vectors(count=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=draw), torch.randn(count, 5, generator=draw)


def test_each_vector_becomes_its_own_tokens(hffm):
    anatomy, style = vectors()
    tokens = hffm(anatomy, style)
    other_style = hffm(anatomy, style.roll(1, 0))
    assert tokens.shape == (4, 6, 12)
    torch.testing.assert_close(tokens[:, :3], other_style[:, :3], rtol=0, atol=0)
    assert not torch.allclose(tokens[:, 3:], other_style[:, 3:])


def test_tokens_start_with_about_unit_variance():
    torch.manual_seed(0)
    wide = HFFM(anatomy_width=64, style_width=64, hidden_width=256, token_width=128)
    tokens = wide(torch.randn(32, 64), torch.randn(32, 64))
    assert 0.8 < tokens.std() < 1.2


def test_an_image_s_tokens_do_not_depend_on_its_batch(hffm):
    anatomy, style = vectors()
    alone = torch.cat([hffm(anatomy[i : i + 1], style[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(hffm(anatomy, style), alone)


def test_the_two_channels_carry_different_type_embeddings(hffm):
    assert not torch.allclose(hffm.anatomy_type.mark, hffm.style_type.mark)


def test_no_module_but_leaves_holds_parameters_directly(hffm):
    """Gradients per sample need every trainable parameter in a module of its own."""
    for module in hffm.modules():
        if any(True for _ in module.children()):
            assert not list(module.parameters(recurse=False))


def test_the_null_condition_is_zeros_of_the_same_kind():
    like = torch.randn(3, 7, dtype=torch.bfloat16)
    null = null_condition(like)
    assert null.shape == like.shape
    assert null.dtype == like.dtype
    assert not null.any()


def test_the_null_condition_gives_finite_tokens_and_gradients(hffm):
    anatomy, style = (null_condition(vector) for vector in vectors())
    tokens = hffm(anatomy, style)
    tokens.square().sum().backward()
    assert tokens.isfinite().all()
    assert all(p.grad.isfinite().all() for p in hffm.parameters() if p.grad is not None)


def test_a_saved_hffm_comes_back_the_same_without_a_pickle(hffm, tmp_path):
    hffm.save_pretrained(tmp_path)
    again = HFFM.from_pretrained(tmp_path, use_safetensors=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    torch.testing.assert_close(again(*vectors()), hffm(*vectors()), rtol=0, atol=0)
