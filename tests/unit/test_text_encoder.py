"""Captions become embeddings: no word is lost, words stay apart, nothing is random."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from vgmedgen.errors import BaseError, DataError
from vgmedgen.models.text.encoder import TextEncoder, build_tiny
from vgmedgen.models.text.vocabulary import build_tokenizer

CAPTION = (
    "a dermoscopic image of a melanoma on the back, a large irregular dark brown lesion "
    "in the upper left, ill-defined border, high contrast, on fair skin"
)
WORDS = [*CAPTION.split(), "right", "red", "lower", "small"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    tokenizer = build_tokenizer(WORDS, 96)
    return TextEncoder(build_tiny(128, 2, tokenizer, 0), tokenizer)


@pytest.fixture(scope="module")
def saved(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    encoder.model.save_pretrained(folder / "text_encoder")
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def test_words_of_the_grammar_stay_whole():
    pieces = build_tokenizer(WORDS, 96).tokenize(CAPTION)
    assert not [piece for piece in pieces if piece.startswith("##")]
    assert {"melanoma", "ill", "-", "defined", "skin"} <= set(pieces)


@pytest.mark.parametrize(
    "word", ["zosteriform", "Ödem", "3,5", "\N{MICRO SIGN}m", "лезия", "½", "≥10"]
)
def test_no_word_is_unknown_even_when_nobody_foresaw_it(word: str):
    tokenizer = build_tokenizer(WORDS, 96)
    assert tokenizer.unk_token_id not in tokenizer(word)["input_ids"]


def test_case_does_not_matter():
    tokenizer = build_tokenizer(["Melanoma"], 96)
    assert tokenizer.tokenize("MELANOMA") == ["melanoma"]


def test_a_tokenizer_without_room_for_a_word_is_refused():
    with pytest.raises(ValueError, match="max_tokens"):
        build_tokenizer(WORDS, 2)


@pytest.mark.parametrize(
    ("word", "other"), [("left", "right"), ("brown", "red"), ("large", "small")]
)
def test_one_other_word_moves_the_embedding_clearly(
    encoder: TextEncoder, word: str, other: str
):
    one, two = encoder.embed([CAPTION, CAPTION.replace(word, other)])
    assert (one - two).norm() > 0.08 * one.norm()


def test_embeddings_do_not_depend_on_the_captions_beside_them(encoder: TextEncoder):
    captions = ["skin", CAPTION, "a small red lesion", "red " * 90]
    together = encoder.embed(captions)
    alone = torch.cat([encoder.embed([caption]) for caption in captions])
    assert torch.equal(together, alone), "to the last bit, whatever the longest one is"
    assert encoder.embed([]).shape == (0, 128)


def test_embedding_twice_gives_the_same_bits_even_in_training_mode(
    encoder: TextEncoder,
):
    first = encoder.embed([CAPTION])
    assert torch.equal(encoder.train().embed([CAPTION]), first)
    assert not encoder.model.training


def test_the_encoder_is_frozen(encoder: TextEncoder):
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not encoder.embed([CAPTION]).requires_grad


def test_a_long_caption_is_cut_and_still_read(encoder: TextEncoder):
    long = " ".join([CAPTION] * 10)
    found = encoder.embed([long, long + " red"])
    assert found.isfinite().all()
    assert torch.equal(found[0], found[1])


def test_tokens_that_do_not_fit_are_counted(encoder: TextEncoder):
    room = encoder.max_tokens - 2  # the two marks around a caption
    captions = ["red " * room, "red " * (room + 1), "red " * (room + 30), "red"]
    assert encoder.dropped(captions) == [0, 1, 30, 0]
    assert encoder.dropped([]) == []


def test_a_dropped_token_is_one_that_does_not_matter(encoder: TextEncoder):
    whole, longer = "red " * 94 + "small", "red " * 94 + "large"
    assert encoder.dropped([whole, "skin " + whole]) == [1, 2]
    first, second = encoder.embed([whole, longer])
    assert torch.equal(first, second)


def test_captions_that_do_not_fit_are_told_of_once_a_call(
    encoder: TextEncoder, caplog: pytest.LogCaptureFixture
):
    encoder.embed(["red " * 104, "skin", "red " * 97])
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 captions are longer than 96 tokens; 13 tokens go unread"
    ]
    caplog.clear()
    encoder.embed(["red " * 94])
    assert not caplog.records


def test_a_caption_alone_gives_the_same_bits_whatever_was_read_before(
    encoder: TextEncoder,
):
    first = encoder.embed_alone("skin")
    encoder.embed_alone(CAPTION)
    assert first.shape == (1, 128)
    assert torch.equal(encoder.embed_alone("skin"), first)
    assert torch.equal(first, encoder.embed([CAPTION, "skin"])[1:])


def test_an_empty_caption_alone_is_refused(encoder: TextEncoder):
    with pytest.raises(DataError, match="empty"):
        encoder.embed_alone(" ")


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_caption_is_refused_by_its_place(encoder: TextEncoder, empty: str):
    with pytest.raises(DataError, match="caption 2 of 2 is empty"):
        encoder.embed([CAPTION, empty])


def test_an_encoder_from_disk_embeds_the_same(encoder: TextEncoder, saved: Path):
    again = TextEncoder.from_folder(saved / "text_encoder", saved / "tokenizer")
    assert again.width == 128
    assert torch.equal(again.embed([CAPTION]), encoder.embed([CAPTION]))


def test_the_tiny_encoder_depends_on_its_seed_and_leaves_the_global_generator_alone():
    tokenizer = build_tokenizer(WORDS, 96)
    before = torch.get_rng_state()
    one, same, other = (build_tiny(64, 1, tokenizer, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name]), name
    table = "embeddings.word_embeddings.weight"
    assert not torch.equal(one.state_dict()[table], other.state_dict()[table])


def test_a_family_without_token_types_works(tmp_path: Path, saved: Path):
    size = len(build_tokenizer(WORDS, 96))
    config = DistilBertConfig(
        vocab_size=size, dim=32, n_layers=1, n_heads=2, hidden_dim=32
    )
    DistilBertModel(config).save_pretrained(tmp_path)
    found = TextEncoder.from_folder(tmp_path, saved / "tokenizer").embed([CAPTION])
    assert found.shape == (1, 32)


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "text_encoder", tmp_path / "text_encoder")
    (tmp_path / "text_encoder/model.safetensors").unlink()
    torch.save({}, tmp_path / "text_encoder/pytorch_model.bin")
    with pytest.raises(BaseError, match=r"holds no model\.safetensors"):
        TextEncoder.from_folder(tmp_path / "text_encoder", saved / "tokenizer")


def test_a_missing_tokenizer_folder_is_named(saved: Path, tmp_path: Path):
    with pytest.raises(BaseError, match="nowhere is no folder"):
        TextEncoder.from_folder(saved / "text_encoder", tmp_path / "nowhere")
