"""Pickled weights become safetensors, once, and nothing in them runs."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from tests.hubs import WEIGHTS, asked, pickled
from vgmedgen.errors import BaseError
from vgmedgen.training.convert import convert
from vgmedgen.training.pretrained import examine


def test_pickled_weights_are_converted_once_and_are_the_same(micro, place):
    path = place / "bert" / "model.safetensors"
    before = load_file(path)
    pickled(path)
    written = convert(place / "bert")
    assert [p.name for p in written] == ["model.safetensors"]
    after = load_file(path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert examine(asked(micro, place).model).text
    assert convert(place / "bert") == []


def test_shards_are_converted_with_their_index(place):
    part = place / "pipeline" / "vae"
    weights = load_file(part / WEIGHTS)
    (part / WEIGHTS).unlink()
    names = sorted(weights)
    halves = {"00001-of-00002": names[::2], "00002-of-00002": names[1::2]}
    listed = {}
    for shard, held in halves.items():
        file = f"diffusion_pytorch_model-{shard}.bin"
        torch.save({name: weights[name] for name in held}, part / file)
        listed |= dict.fromkeys(held, file)
    index = part / "diffusion_pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    assert len(convert(part)) == 3
    read = AutoencoderKL.from_pretrained(part, use_safetensors=True).state_dict()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


class Planted:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch planted",)


def test_a_pickled_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Planted()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseError, match="more than tensors"):
        convert(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_where_nothing_can_be_converted_it_says_so(tmp_path):
    with pytest.raises(BaseError, match="holds no pickled weights"):
        convert(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cut")
    with pytest.raises(BaseError, match="is damaged"):
        convert(tmp_path)
