"""Anatomy and style are taken from where they were asked for, and moved exactly."""

import pytest
import torch

from tests.pipelines import PROMPTS, micro_pipeline
from vgmedgen.errors import DataError
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.control import Conditions, interpolate, strip

FIRST, SECOND, THIRD = PROMPTS


class Counted(TextEncoder):
    """Notes which captions it reads."""

    def embed_alone(self, caption):
        self.__dict__.setdefault("read", []).append(caption)
        return super().embed_alone(caption)


@pytest.fixture(scope="module")
def pipeline():
    return micro_pipeline()


@pytest.fixture
def encoder(pipeline):
    return Counted(pipeline.text_encoder, pipeline.tokenizer)


@pytest.fixture
def conditions(pipeline, encoder):
    return Conditions(encoder, pipeline.text_mapper, "cpu")


def ask(**told):
    return Ask(**{"number": 0, "prompt": FIRST, "seed": 1, **told})


def same(vectors, others):
    return all(torch.equal(a, b) for a, b in zip(vectors, others, strict=True))


def test_a_prompt_alone_gives_what_the_mapper_says_of_it(pipeline, encoder, conditions):
    with torch.no_grad():
        anatomy, style = pipeline.text_mapper(encoder.embed([FIRST]))
    assert same(conditions.of(ask()), (anatomy[0], style[0]))
    assert anatomy.shape == (1, 6)
    assert style.shape == (1, 5)


def test_anatomy_of_one_caption_and_style_of_another_are_those_two_vectors(conditions):
    mixed = conditions.of(ask(prompt=THIRD, anatomy=FIRST, style=SECOND))
    by_hand = conditions.of_caption(FIRST)[0], conditions.of_caption(SECOND)[1]
    assert same(mixed, by_hand)


def test_another_style_leaves_the_anatomy_alone_and_the_other_way_round(conditions):
    plain = conditions.of(ask())
    styled = conditions.of(ask(style=SECOND))
    assert torch.equal(styled[0], plain[0])
    assert not torch.equal(styled[1], plain[1])
    shaped = conditions.of(ask(anatomy=SECOND))
    assert torch.equal(shaped[1], plain[1])
    assert not torch.equal(shaped[0], plain[0])


def test_share_0_and_1_are_the_ends_to_the_bit(conditions):
    start, end = conditions.of_caption(FIRST), conditions.of_caption(SECOND)
    assert same(conditions.of(ask(towards=SECOND, share=0.0)), start)
    assert same(conditions.of(ask(towards=SECOND, share=1.0)), end)
    assert not same(start, end)


def test_halfway_is_the_mean_of_both_ends(conditions):
    start, end = conditions.of_caption(FIRST), conditions.of_caption(SECOND)
    between = conditions.of(ask(towards=SECOND, share=0.5))
    for half, one, other in zip(between, start, end, strict=True):
        torch.testing.assert_close(half, (one + other) / 2)


def test_a_mixture_is_moved_as_a_whole(conditions):
    mixed = conditions.of(ask(style=SECOND))
    moved = conditions.of(ask(style=SECOND, towards=THIRD, share=0.25))
    assert same(moved, interpolate(mixed, conditions.of_caption(THIRD), 0.25))


def test_each_caption_is_read_once(encoder, conditions):
    for told in ({}, {"style": SECOND}, {"anatomy": SECOND}, {"prompt": SECOND}):
        conditions.of(ask(**told))
    assert encoder.read == [FIRST, SECOND]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_beyond_the_ends_is_refused(conditions, share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        conditions.of(ask(towards=SECOND, share=share))


@pytest.mark.parametrize("half", ["prompt", "anatomy", "style", "towards"])
def test_a_caption_of_spaces_is_refused(conditions, half):
    with pytest.raises(DataError, match="empty"):
        conditions.of(ask(**{half: "  "}))


def test_a_strip_goes_evenly_from_end_to_end():
    way = strip(ask(number=5, towards=SECOND, share=0.3), 5)
    assert [one.share for one in way] == [0, 0.25, 0.5, 0.75, 1]
    assert [one.number for one in way] == [5, 6, 7, 8, 9]
    assert {(one.seed, one.prompt, one.towards) for one in way} == {(1, FIRST, SECOND)}


def test_a_strip_without_an_end_is_refused():
    with pytest.raises(ValueError, match="move towards"):
        strip(ask(), 5)
    with pytest.raises(ValueError, match="two ends"):
        strip(ask(towards=SECOND), 1)
