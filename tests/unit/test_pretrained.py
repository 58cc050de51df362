"""Pretrained folders as hubs lay them out: read, or refused in one line before any work."""

import dataclasses
import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    T5Config,
    T5EncoderModel,
)

from tests.hubs import SIZES, WEIGHTS, WORDS, asked, pickled
from vgmedgen.data import adapters
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.errors import BaseError, ConfigError
from vgmedgen.files import sha256
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.models.text.vocabulary import build_tokenizer
from vgmedgen.release.facts import plain
from vgmedgen.training import public as public_module
from vgmedgen.training.pretrained import examine
from vgmedgen.training.public import build_from, build_from_phantoms


def ultrasound(tmp_path):
    folder = tmp_path / "public"
    write_phantoms("ultrasound", folder, 12, 0, 32, tint_of(0))
    return [adapters.read("busi", folder)]


@pytest.fixture
def forbidden_work(monkeypatch):
    """Whatever is refused must be so before anything is drawn or trained."""

    def works(*_, **__):
        raise AssertionError("work began before everything was examined")

    monkeypatch.setattr(public_module, "phantoms", works)
    monkeypatch.setattr(public_module, "build", works)


def test_a_base_around_pretrained_weights_keeps_them_and_names_them(
    micro, place, tmp_path
):
    made = build_from(
        tmp_path / "made", ultrasound(tmp_path), asked(micro, place), "busi"
    )
    for part in ("vae", "transformer"):
        ours = load_file(made.part(part) / WEIGHTS)
        theirs = load_file(place / "pipeline" / part / WEIGHTS)
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    source = made.manifest["source"]
    assert source.startswith("busi; pretrained PixArtTransformer2DModel sha256:")
    assert "AutoencoderKL sha256:" in source
    assert "BertForMaskedLM sha256:" in source
    assert made.manifest["licence"] == "Apache-2.0"
    assert plain(source) == source  # so that a release can tell it on
    digests = made.manifest["model"]["pretrained"]
    assert digests["vae"] == sha256(place / "pipeline" / "vae" / WEIGHTS)
    encoder = TextEncoder.from_folder(made.part("text_encoder"), made.part("tokenizer"))
    assert encoder.embed(["a mass in the upper left"]).shape == (1, 32)


def test_two_builds_from_two_places_have_one_digest_and_name_neither(
    micro, place, tmp_path
):
    other = shutil.copytree(place, tmp_path / "elsewhere")
    public = ultrasound(tmp_path)
    torch.manual_seed(5)  # a checkpoint without a pooler must not get a random one
    one = build_from(tmp_path / "one", public, asked(micro, place), "busi")
    torch.manual_seed(6)
    two = build_from(tmp_path / "two", public, asked(micro, other), "busi")
    assert one.digest == two.digest
    for path in one.folder.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_pretrained_weights_without_a_licence_are_refused(
    micro, place, tmp_path, forbidden_work
):
    run = asked(micro, place)
    run = dataclasses.replace(run, base=dataclasses.replace(run.base, licence=" "))
    with pytest.raises(ConfigError, match=r"licence of pretrained.*base\.licence"):
        build_from_phantoms(tmp_path / "made", run)


@pytest.mark.parametrize("shards", ["10GB", "4KB"])
def test_weights_in_half_precision_are_read_alone_and_in_shards(
    micro, place, tmp_path, shards
):
    half = {"variant": "fp16", "max_shard_size": shards}
    pipeline = place / "pipeline"
    for part, kind in (
        ("transformer", PixArtTransformer2DModel),
        ("vae", AutoencoderKL),
    ):
        model = kind.from_pretrained(pipeline / part)
        shutil.rmtree(pipeline / part)
        model.half().save_pretrained(pipeline / part, **half)
    bert = BertForMaskedLM.from_pretrained(place / "bert")
    (place / "bert" / "model.safetensors").unlink()
    bert.half().save_pretrained(place / "bert", **half)
    found = examine(asked(micro, place).model)
    assert found.transformer.variant == found.text.variant == "fp16"
    assert (len(found.transformer.files) > 1) == (shards == "4KB")
    made = build_from(
        tmp_path / "made", ultrasound(tmp_path), asked(micro, place), "busi"
    )
    stored = load_file(made.part("transformer") / WEIGHTS)
    assert {weight.dtype for weight in stored.values()} == {torch.float32}


def test_a_hub_s_cache_is_read_through_its_links(micro, place, tmp_path):
    top = tmp_path / "hub" / "models--owner--pixart"
    blobs, snapshot = top / "blobs", top / "snapshots" / "0a1b"
    for number, path in enumerate(sorted((place / "pipeline").rglob("*"))):
        if path.is_file():
            link = snapshot / path.relative_to(place / "pipeline")
            link.parent.mkdir(parents=True, exist_ok=True)
            blobs.mkdir(exist_ok=True)
            shutil.copy(path, blobs / str(number))
            link.symlink_to(blobs / str(number))
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("0a1b")
    model = asked(micro, place, source=str(top)).model
    assert examine(model).transformer.folder == snapshot / "transformer"
    with pytest.raises(BaseError, match=r"whole cache; name one model.*models--owner"):
        examine(dataclasses.replace(model, source=str(top.parent)))
    (blobs / "1").unlink()
    with pytest.raises(BaseError, match=r"is a link to nothing|holds no"):
        examine(model)


def test_a_vae_with_the_names_of_old_checkpoints_is_read(micro, place):
    part = place / "pipeline" / "vae"
    model = AutoencoderKL.from_pretrained(part)
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(name):
        for ours, theirs in new.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        return name

    weights = {old(name): weight for name, weight in model.state_dict().items()}
    assert any(".query." in name for name in weights)
    save_file(weights, part / WEIGHTS, metadata={"format": "pt"})
    assert examine(asked(micro, place).model).vae


@pytest.mark.parametrize("family", [BertModel, DistilBertModel])
def test_encoders_of_the_bert_family_are_read(micro, place, family):
    shutil.rmtree(place / "bert")
    words = build_tokenizer(WORDS, 32)
    words.save_pretrained(place / "bert")
    config = (
        BertConfig(vocab_size=len(words), **SIZES)
        if family is BertModel
        else DistilBertConfig(
            vocab_size=len(words), dim=32, n_layers=1, n_heads=1, hidden_dim=32
        )
    )
    family(config).save_pretrained(place / "bert")
    assert examine(asked(micro, place).model).text


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def pointer(path):
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def other_scheduler(path):
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "prediction_type": "x0"})
    )


def other_class(path):
    told = {**json.loads(path.read_text()), "_class_name": "SanaTransformer2DModel"}
    path.write_text(json.dumps(told))


def wider(path):
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "caption_channels": 32})
    )


def more_channels(path):
    told = {**json.loads(path.read_text()), "latent_channels": 16}
    path.write_text(json.dumps(told))
    AutoencoderKL.from_config(told).save_pretrained(path.parent)


def gone(path):
    path.unlink()


def emptied(path):
    path.write_text("")


@pytest.mark.usefixtures("forbidden_work")
@pytest.mark.parametrize(
    ("file", "harm", "says"),
    [
        (f"pipeline/transformer/{WEIGHTS}", cut, "damaged or cut short"),
        (f"pipeline/transformer/{WEIGHTS}", pointer, "git lfs pull"),
        (f"pipeline/vae/{WEIGHTS}", gone, f"holds no {WEIGHTS}"),
        (f"pipeline/vae/{WEIGHTS}", pickled, "vgmedgen base convert"),
        ("pipeline/vae/config.json", gone, r"holds no config\.json"),
        ("pipeline/vae/config.json", emptied, r"config\.json cannot be read"),
        ("pipeline/vae/config.json", more_channels, "latent_channels is 16"),
        (
            "pipeline/transformer/config.json",
            other_class,
            "is a SanaTransformer2DModel",
        ),
        ("pipeline/transformer/config.json", wider, "config asks for caption_proj"),
        ("pipeline/scheduler/scheduler_config.json", gone, "scheduler_config.json"),
        ("pipeline/scheduler/scheduler_config.json", other_scheduler, "is 'x0'"),
        ("bert/model.safetensors", cut, "damaged or cut short"),
        ("bert/model.safetensors", pickled, "vgmedgen base convert"),
        ("bert/config.json", gone, r"holds no config\.json"),
        ("bert/tokenizer.json", gone, "holds no tokenizer"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_before_work(
    micro, place, tmp_path, file, harm, says
):
    if file.startswith("bert/tokenizer"):
        for path in (place / "bert").glob("*token*"):
            path.unlink()
    else:
        harm(place / file)
    with pytest.raises(BaseError, match=says) as refused:
        build_from_phantoms(tmp_path / "made", asked(micro, place))
    assert "\n" not in str(refused.value)
    assert refused.value.code == "VG15"
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("forbidden_work")
def test_folders_of_another_kind_are_refused_with_the_right_one(micro, place, tmp_path):
    def says(**changes):
        with pytest.raises(BaseError) as refused:
            build_from_phantoms(tmp_path / "made", asked(micro, place, **changes))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "single part" in says(source=str(place / "pipeline" / "transformer"))
    assert "is no folder; name one" in says(source=str(place / "absent" / "x" / "y"))
    told = says(source="owner/pixart@refs/pr/3")
    assert "hf download owner/pixart --revision refs/pr/3" in told
    assert "model.source=DIR" in told
    assert "set model.image_px=32" in says(image_px=64)
    shutil.rmtree(place / "pipeline" / "vae")
    assert "holds no folder vae" in says()
    shutil.rmtree(place / "bert")
    words = build_tokenizer(WORDS, 32)
    T5EncoderModel(
        T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1)
    ).save_pretrained(place / "bert")
    words.save_pretrained(place / "bert")
    assert "BERT family" in says(source="")


@pytest.mark.usefixtures("forbidden_work")
def test_a_tokenizer_of_another_model_is_refused(micro, place, tmp_path):
    build_tokenizer([*WORDS, "more", "words", "than", "weights"], 32).save_pretrained(
        place / "bert"
    )
    with pytest.raises(BaseError, match=r"tokenizer in .* knows"):
        build_from_phantoms(tmp_path / "made", asked(micro, place))


@pytest.mark.usefixtures("forbidden_work")
def test_an_encoder_whose_weights_lack_a_layer_is_refused(micro, place, tmp_path):
    path = place / "bert" / "model.safetensors"
    weights = load_file(path)
    weights.pop(next(name for name in weights if "attention.self.query.weight" in name))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(BaseError, match=r"the weights lack .*query\.weight"):
        build_from_phantoms(tmp_path / "made", asked(micro, place))
