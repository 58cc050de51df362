"""A run whose last rounds did not count: nobody gets its release without a word."""

import json

import pytest

from server import accepting, place, runs
from server.registry import Registry
from tests.federation.attacks import KEY
from tests.federation.toys import ToySite, client_of, config, play, prepare, toys
from vgmedgen.errors import TooFewSitesError, TrainingError
from vgmedgen.trust.journal import Journal

pytestmark = pytest.mark.simulation


class Broken(ToySite):
    """A site whose training ends from some round on."""

    last = 1

    def train(self, order):
        if order.number > self.last:
            raise TrainingError("a loss is not finite")
        return super().train(order)


def launched(tmp_path, last, key):
    folder = runs.folder_of(tmp_path / "state", "toy-1")
    sites = [Broken("alpha"), Broken("beta")]
    for site in sites:
        site.last = last
    return prepare(folder, sites, config(evaluate=False), key=key), sites


def test_such_a_run_is_not_released_until_somebody_says_so(tmp_path):
    launch, sites = launched(tmp_path, 1, KEY)
    with pytest.raises(TooFewSitesError) as caught:
        play(launch, client_of(sites), sites)
    said = str(caught.value)
    assert "the last 2 rounds did not count" in said
    assert "(round 2: 0 of 2 sites, round 3: 0 of 2 sites)" in said
    assert "the release would be what round 1 made" in said
    assert "--release-anyway" in said
    assert not (launch.folder / "release").exists()
    assert all(not site.releases for site in sites)
    with pytest.raises(TooFewSitesError):  # nor is it by trying again
        play(launch, client_of(sites), sites)
    accepting.accept(launch.folder)
    (entry,) = Journal(tmp_path / "state" / place.AUDIT).entries()[-1:]
    assert (entry["event"], entry["round"]) == ("release", 1)
    assert (entry["run"], entry["decision"]) == ("toy-1", "approved")
    play(launch, client_of(sites), sites)
    installed = json.loads((launch.folder / "installed.json").read_text())
    assert set(installed["sites"]) == {"alpha", "beta"}
    assert len(Registry(launch.folder).rounds()) == 3


def test_a_word_for_one_end_is_none_for_another(tmp_path):
    launch, sites = launched(tmp_path, 1, KEY)
    (launch.folder / accepting.FILE).write_text(json.dumps({"after": 2}))
    with pytest.raises(TooFewSitesError):
        play(launch, client_of(sites), sites)


def test_a_run_whose_last_round_counted_is_released_unasked(tmp_path):
    sites = toys(2)
    launch = prepare(tmp_path, sites, config(evaluate=False), key=KEY)
    play(launch, client_of(sites), sites)
    assert (tmp_path / "installed.json").is_file()


def test_in_a_simulation_nobody_is_asked(tmp_path):
    launch, sites = launched(tmp_path, 2, None)
    play(launch, client_of(sites), sites)
    assert (launch.folder / "installed.json").is_file()
