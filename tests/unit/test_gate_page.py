"""The gate's report: every number holds, and nothing of a single image is in it."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from vgmedgen.errors import StateError
from vgmedgen.gate.calibration import FEWEST, Calibration, Tails
from vgmedgen.gate.page import headline, page, write
from vgmedgen.gate.report import Report
from vgmedgen.gate.verdict import REASONS, Verdict

RATE = 0.01


def values_of(count, seed=0):
    """Detector values (count, 3) and distances (count,) of made-up held-out images."""
    rng = np.random.default_rng(seed)
    return rng.gumbel(0, 1, (count, 3)), rng.normal(0.9, 0.08, count)


USUAL = Tails.of(values_of(100, seed=1)[0])  # as training images show it


def verdicts(tried, held, *, closer=0):
    """Images of which the first `held` are held back and the first `closer` lie near."""
    return [
        Verdict(
            cleared=k >= held,
            reason=REASONS[k % 3] if k < held else "",
            distance=0.2 if k < held else 0.9,
            score=9.0 + k if k < held else 1.0,
            closer=k < closer,
            row=k,
        )
        for k in range(tried)
    ]


def report(tried=12, held=2, *, heldout=200, given=None, copies=0, closer=9, rate=RATE):
    values, distances = given or values_of(heldout)
    scores = USUAL.scores(values)
    calibration = Calibration.of(scores, [str(k) for k in range(len(scores))], rate)
    return Report.of(
        verdicts(tried, held, closer=min(closer, tried)),
        calibration=calibration,
        rate=rate,
        copies=copies,
        sizes=(800, len(values) + copies),
        heldout=(scores, distances),
        digest="ab" * 32,
    )


class Text(HTMLParser):
    """Words of a page, its tags, and what it would fetch."""

    def __init__(self, content):
        super().__init__()
        self.words, self.tags, self.fetched = [], [], []
        self.feed(content)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [
            v for k, v in attrs if k in {"src", "href", "srcset", "action"}
        ]

    def handle_data(self, data):
        self.words.append(data)


def text_of(found):
    return Text(page(found)).text


def leaves(told):
    """All numbers of nested plain values, in order."""
    if isinstance(told, dict):
        return [n for _, one in sorted(told.items()) for n in leaves(one)]
    if isinstance(told, list | tuple):
        return [n for one in told for n in leaves(one)]
    return [told] if isinstance(told, int | float) else []


def test_both_files_are_written_and_the_page_needs_no_other(tmp_path):
    found = report()
    write(found, tmp_path)
    told = json.loads((tmp_path / "gate.json").read_text())
    assert told == json.loads(json.dumps(found.to_json()))
    read = Text((tmp_path / "gate.html").read_text())
    assert read.fetched == []
    assert not {"script", "link", "iframe", "img", "a"} & set(read.tags)
    assert "http" not in read.text
    assert read.tags.count("svg") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gate.html",
        "gate.json",
    ]


def test_a_page_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "gate.html").mkdir()
    with pytest.raises(StateError, match="cannot write"):
        write(report(), tmp_path)


def test_the_page_says_what_the_counts_are():
    found = report(120, 14, closer=118, copies=3)
    told = text_of(found)
    for part in (
        "120 images were tried: 106 cleared, 14 are held back.",
        "11.7 % (95 % interval 6.5 to 18.8 %)",
        f"the threshold is {found.threshold:.1f}.",
        "At most 1 % of the images of further units are held back by mistake",
        "it is 0.1 to 2.8 % (95 % interval",
        "118 of 120 (98.3 %) lie nearer to a training image",
        f"With 800 training and 203 held-out images, {100 * 800 / 1003:.1f} % would",
        "is smaller than 0.01 % (one-sided exact binomial test)",
        "That is more than chance",
        "3 held-out images show the same picture",
        "vgmedgen data twins finds such images",
        "More were held back than that explains",
        found.gate,
    ):
        assert part in told, part
    for reason in found.reasons:
        assert reason[1:] in told


@pytest.mark.parametrize(
    ("tried", "held", "says"),
    [
        (0, 0, "No image was tried, so none is cleared."),
        (1, 0, "One image was tried, and it is cleared."),
        (1, 1, "One image was tried, and it is held back."),
        (2, 0, "Both images that were tried are cleared."),
        (2, 2, "Both images that were tried are held back; none is cleared."),
        (11, 11, "All 11 images that were tried are held back; none is cleared."),
        (11, 1, "11 images were tried: 10 cleared, 1 is held back."),
        (11, 0, "All 11 images that were tried are cleared."),
    ],
)
def test_any_number_reads_well(tried, held, says):
    found = report(tried, held, heldout=24)
    assert headline(found) == says
    told = text_of(found)
    assert says in told
    assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", told.lower()))
    assert ("There is nothing to hand on" in told) == (tried == 0)
    assert ("None was held back" in told) == (held == 0)
    assert ("No image was tried" in told) == (tried == 0)
    assert sum(found.scores.synthetic) == sum(found.distances.synthetic) == tried
    assert sum(found.scores.heldout) == sum(found.distances.heldout) == 24
    assert found.cleared == tried - held


def test_few_held_out_units_promise_one_in_as_many_and_the_page_says_so():
    found = report(heldout=FEWEST)
    assert found.promised == 1 / (FEWEST + 1)
    told = text_of(found)
    assert "At most 4.8 % of the images" in told
    assert "The site asks for 1 %; 20 units can promise no less than one in 21" in told
    assert "an estimate and no promise" in told
    assert "too few for a firm rank at 1 %" in told


def test_many_held_out_units_promise_what_is_asked_for_by_a_rank():
    found = report(heldout=400)
    assert found.promised == found.false_alarms == RATE
    told = text_of(found)
    assert "a rank among their scores" in told
    assert "no promise" not in told
    assert 0 < found.likely.low < RATE < found.likely.high
    assert "it is 0.3 to 2.2 % (95 % interval" in told


def test_no_more_than_chance_is_not_called_a_leaning():
    told = text_of(report(100, 1, closer=80))
    assert "no more than chance" in told
    assert "more than chance:" not in told
    assert "No more were held back than that explains" in told


def test_held_out_images_that_are_all_alike_give_a_report():
    given = np.zeros((40, 3)), np.full(40, 0.7)
    found = report(given=given)
    assert sum(found.distances.heldout) == 40
    assert all(map(math.isfinite, leaves(found.to_json())))
    assert all(
        a < b for a, b in zip(found.scores.edges, found.scores.edges[1:], strict=False)
    )
    assert "nan" not in text_of(found)
    nothing = report(given=(np.zeros((40, 3)), np.zeros(40)))
    assert sum(nothing.distances.heldout) == 40


def test_a_threshold_far_out_stays_on_the_figure():
    values, distances = values_of(100)
    values[:5] *= 40
    found = report(given=(values, distances))
    assert found.threshold > 13
    assert found.scores.edges[0] < found.threshold < found.scores.edges[-1]


@pytest.mark.parametrize("heldout", [24, 60, 150, 400])
def test_one_image_of_the_site_moves_counts_and_no_other_number(heldout):
    values, distances = values_of(heldout, seed=heldout)
    scores = USUAL.scores(values)
    usual = int(np.argsort(scores)[heldout // 3])  # of no rank that decides
    changed = values.copy(), distances.copy()
    changed[0][usual] -= 0.731
    changed[1][usual] -= 0.2173
    one, other = (report(given=g).to_json() for g in ((values, distances), changed))
    for told in (one, other):
        for histogram in (told["scores"], told["distances"]):
            assert sum(histogram.pop("heldout")) == heldout
    # a tail through few images moves with each, by less than tells what the image was
    moved = 0.5 if heldout < 60 else 0.101
    assert other["threshold"] == pytest.approx(one["threshold"], abs=moved)
    one.pop("threshold"), other.pop("threshold")
    assert one == other


def test_the_most_alike_image_of_the_site_is_told_to_a_step_of_the_bins():
    """The threshold by rank is the score of one image: 0.1 is all that is told of it."""
    values, distances = values_of(400)
    scores = USUAL.scores(values)
    calibration = Calibration.of(scores, [str(k) for k in range(len(scores))], RATE)
    exact = {round(float(n), 6) for n in (*scores, *distances)}
    assert calibration.threshold in scores
    found = report(given=(values, distances))
    assert found.threshold != calibration.threshold
    assert found.threshold == pytest.approx(calibration.threshold, abs=0.05001)
    told = {round(float(n), 6) for n in leaves(found.to_json())}
    told -= {*found.scores.edges, *found.distances.edges}
    assert not told & exact
    # by the text of the page too: no number of it is one of them to three decimals
    cells = " ".join(Text(page(found)).words)
    shown = {float(n) for n in re.findall(r"\d+\.\d{3,}", cells)}
    assert not {round(n, 3) for n in shown} & {round(n, 3) for n in exact}


def test_no_verdict_names_a_row_in_what_goes_with_the_images():
    found = json.dumps(report(12, 2).to_json())
    assert "row" not in found
    assert "unit" not in found
