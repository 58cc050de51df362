"""A base bundle: alike for equal seeds, built by one process, and not in silence."""

import dataclasses
import logging
import multiprocessing

from vgmedgen.base import open_bundle
from vgmedgen.models.objective import Schedule
from vgmedgen.process.progress import ProgressLog, duration
from vgmedgen.training.public import base_for, build_from_phantoms


def test_two_builds_of_one_recipe_have_one_digest(bundle, micro, tmp_path):
    again = build_from_phantoms(tmp_path / "again", micro)
    assert again.digest == bundle.digest
    assert open_bundle(again.folder).digest == bundle.digest


def test_a_base_predicts_what_its_recipe_says_and_its_schedule_tells(
    bundle, micro, tmp_path
):
    assert Schedule.load(bundle.part("scheduler")).predicts == "v_prediction"
    base = dataclasses.replace(micro.base, predicts="epsilon")
    made = build_from_phantoms(
        tmp_path / "noise", dataclasses.replace(micro, base=base)
    )
    assert Schedule.load(made.part("scheduler")).predicts == "epsilon"
    assert made.digest != bundle.digest


def build_and_tell(config, cache, results):
    import os

    os.environ["VGMEDGEN_CACHE"] = str(cache)
    messages = []
    log = logging.getLogger("vgmedgen.training.public")
    log.setLevel(logging.INFO)
    log.addHandler(handler := logging.Handler())
    handler.emit = lambda record: messages.append(record.getMessage())
    results.put((base_for(config).digest, messages))


def test_two_first_runs_that_share_a_cache_build_one_base(micro, bundle, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    runs = [
        spawn.Process(target=build_and_tell, args=(micro, tmp_path, results))
        for _ in range(3)
    ]
    for run in runs:
        run.start()
    answers = [results.get() for _ in runs]
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert {digest for digest, _ in answers} == {bundle.digest}
    said = [" ".join(messages) for _, messages in answers]
    assert sum("(once)" in words for words in said) == 1
    assert [path.name for path in tmp_path.iterdir()] == [bundle.folder.name]
    open_bundle(tmp_path / bundle.folder.name, expect=bundle.digest)


def test_who_waits_for_another_s_build_says_so_once(micro, bundle, tmp_path, caplog):
    import threading

    from vgmedgen.training.public import building

    first, done = threading.Event(), threading.Event()

    def other():
        with building(tmp_path / "base"):
            first.set()
            done.wait()

    holder = threading.Thread(target=other)
    holder.start()
    first.wait()
    waiting = threading.Event()
    logging.getLogger("vgmedgen.training.public").setLevel(logging.INFO)

    class Ends(logging.Handler):
        def emit(self, record):
            waiting.set()

    log = logging.getLogger("vgmedgen.training.public")
    log.addHandler(ends := Ends())
    entered = threading.Event()

    def second():
        with building(tmp_path / "base"):
            entered.set()

    waiter = threading.Thread(target=second)
    waiter.start()
    waiting.wait()
    assert not entered.is_set()
    done.set()
    waiter.join()
    holder.join()
    log.removeHandler(ends)
    assert entered.is_set()
    assert not list(tmp_path.iterdir())


def test_a_build_says_at_once_what_it_does_and_names_every_part(
    micro, bundle, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    build_from_phantoms(tmp_path / "again", micro)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("base: part 1 of 6, drawing sets of phantoms: ")
    for part in range(1, 7):
        assert any(line.startswith(f"base: part {part} of 6, ") for line in lines)


def test_progress_in_a_log_says_how_much_is_left_and_not_too_often(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    progress = ProgressLog(
        logging.getLogger("vgmedgen.x"), "work", 100, clock=lambda: now[0]
    )
    for done in range(1, 101):
        now[0] += 3.0
        progress(done)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "work: 100 steps"
    assert lines[1] == "work: 4 of 100, about 5 min left"  # 96 steps of 3 s
    assert lines[2] == "work: 14 of 100, about 4 min left"
    assert len(lines) == 1 + 10
    assert "100 of 100" not in " ".join(lines)


def test_lengths_of_time_are_told_in_words_for_people():
    assert [duration(s) for s in (0.4, 45, 100, 3540, 7500)] == [
        "0 s",
        "45 s",
        "2 min",
        "59 min",
        "2 h 5 min",
    ]
