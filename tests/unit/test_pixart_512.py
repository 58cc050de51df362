import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler

from vgmedgen.config.run import ModelConfig
from vgmedgen.models import lora
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import Schedule, denoising_loss, drop_condition
from vgmedgen.models.sampler import sample, solver

PIXART_XL_2_512 = ModelConfig(
    preset="pixart-512",
    image_px=512,
    vae_channels=(128, 256, 512, 512),
    vae_layers=2,
    dit_layers=28,
    dit_heads=16,
    dit_head_width=72,
    dit_patch=2,
    caption_width=4096,
)
PARAMETERS = 610_856_096  # of the published transformer
LORA_ATTENTION = 4_128_768  # rank 8 on q, k, v, out of both attentions
SCHEDULER = DDPMScheduler(beta_schedule="linear", clip_sample=False)


@pytest.mark.slow
def test_the_full_size_trains_a_step_and_draws_an_image():
    generator = Generator.build(PIXART_XL_2_512, seed=0, learned_sigma=True)
    transformer = generator.transformer
    assert sum(p.numel() for p in transformer.parameters()) == PARAMETERS
    assert not transformer.use_additional_conditions
    assert generator.latent_shape == (4, 64, 64)
    generator.to(torch.bfloat16)
    lora.attach(generator, 8, 8, ("to_q", "to_k", "to_v", "to_out.0"), seed=0)
    generator.checkpoint_gradients(on=True)
    generator.train()
    trained = lora.parameters(generator)
    dit = sum(w.numel() for n, w in trained.items() if n.startswith("dit."))
    assert dit == LORA_ATTENTION
    before = lora.state(generator)

    draw = torch.Generator().manual_seed(0)
    vectors = [torch.randn(2, 64, generator=draw) for _ in range(2)]
    latents, noise = (torch.randn(2, 4, 64, 64, generator=draw) for _ in range(2))
    loss = denoising_loss(
        generator,
        Schedule.of(SCHEDULER),
        latents,
        torch.tensor([100, 800]),
        noise,
        *drop_condition(*vectors, torch.tensor([True, False])),
    )
    assert loss.isfinite().all()
    loss.mean().backward()
    torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    torch.optim.AdamW(trained.values(), lr=1e-3).step()
    after = lora.state(generator)
    moved = [name for name in after if not torch.equal(after[name], before[name])]
    assert all(after[name].isfinite().all() for name in after)
    assert any(name.startswith("dit.") for name in moved)
    assert any(name.startswith("hffm.") for name in moved)

    one = [vector[:1] for vector in vectors]
    drawn = sample(generator, solver(SCHEDULER), *one, steps=2, guidance=4.5, seeds=[0])
    stages = len(PIXART_XL_2_512.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=PIXART_XL_2_512.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        layers_per_block=PIXART_XL_2_512.vae_layers,
        latent_channels=4,
    )
    with torch.no_grad():
        image = Codec(vae).decode(drawn)
    assert image.shape == (1, 3, 512, 512)
    assert image.isfinite().all()
