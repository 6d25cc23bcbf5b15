"""A race: who is stopped by hand and by chance, that a race finds the winner, and that it decides the same again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.config import apply_overrides, check, read_yaml
from nas.methods.catalog import check_search
from nas.methods.crnas import carry_out, foreseen
from nas.methods.data import read_data
from nas.methods.replaying import replay_run
from nas.planning import Work
from nas.progress import Silent
from nas.proxies.supernet import SupernetProxy
from nas.racing import Race, rungs_of
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.race import RaceRecipe
from nas.run import Run
from nas.show import histories
from nas.trials import BY_GROUP, ROUND, Record, Score
from search_spaces.architecture import Architecture, Candidate, Genes, Prefix
from search_spaces.errors import CandidateFailed, ConfigError

TINY = Path(__file__).parent / "recipes/tiny.yaml"
KEEP = 0
"""With the one to spare, one better candidate is enough to be stopped."""
RACE = RaceRecipe(first=50, growth=4, level=0.05, groups=16)


def record(number: int, scores: np.ndarray, step: int, *, round: int = 0, genes: int = 1) -> Record:
    """A trial whose "AP" is the mean of these values, one an image."""
    candidate: Candidate = Prefix(space="s", genes=Genes({f"g{place}": number for place in range(genes)}))
    seen = scores[:step]
    groups = np.arange(step) % RACE.groups
    parts = [float(seen[groups == group].mean()) for group in range(RACE.groups)]
    return Record(
        number=number,
        phase="p",
        candidate=candidate,
        digest=candidate.digest,
        attributes={ROUND: round, BY_GROUP: {str(step): parts}},
        intermediate={step: float(seen.mean())},
    )


def test_rungs_grow_and_end_before_the_last_image() -> None:
    assert rungs_of(RaceRecipe(first=50), 5000, 16) == (64, 208, 800, 3200)
    assert rungs_of(RaceRecipe(first=4, growth=2), 73, 16) == (16, 32, 64)
    with pytest.raises(
        ConfigError, match="first: found 70, in mini-batches of 16; allowed is less than the 73"
    ):
        rungs_of(RaceRecipe(first=70), 73, 16)


def test_who_is_far_behind_is_stopped_and_who_is_near_goes_on() -> None:
    draws = np.random.default_rng(0)
    images = draws.normal(30.0, 10.0, size=400)
    far, near = images - 3 + draws.normal(size=400), images - 0.05 + draws.normal(size=400)
    history = [record(0, images, 64), record(1, far, 64), record(2, near, 64)]
    race = Race(RACE, images=400, mini_batch=8, keep=KEEP)
    said = race.stops(history, 1, 64)
    assert said is not None and said.startswith("stopped after 64 of 400 images: ")
    assert race.stops(history, 0, 64) is None and race.stops(history, 2, 64) is None
    assert race.decisions(history) == {(0, 64): False, (1, 64): True, (2, 64): False}
    assert Race(RACE, images=400, mini_batch=8, keep=2).stops(history, 1, 64) is None, (
        "two are better, two are kept"
    )


def test_who_failed_stops_nobody_of_a_later_round() -> None:
    images = np.random.default_rng(5).normal(30.0, 10.0, size=100)
    race = Race(RACE, images=400, mini_batch=8, keep=1)
    leaders = [record(number, images + 0.001 * number, 64) for number in range(2)]
    late = record(2, images - 5 + 0.01 * np.arange(100), 64, round=2)
    assert race.stops([*leaders, late], 2, 64) is not None
    assert race.stops([leaders[0], replace(leaders[1], state="failed"), late], 2, 64) is None


def test_one_that_leads_may_fail_and_the_search_has_a_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly everybody is stopped, and the first that is scored on all images runs out of memory."""
    scored = SupernetProxy.__call__
    failed: list[str] = []

    def fails_once(self: SupernetProxy, candidate: Candidate) -> Score:
        if not failed:
            failed.append(candidate.digest)
            raise CandidateFailed("out of memory")
        return scored(self, candidate)

    monkeypatch.setattr(SupernetProxy, "__call__", fails_once)
    settings = raced(first=4, groups=4, level=0.45) | {"dilations": None}
    run = Run.create(tmp_path / "run", check_search(settings, source="race"))
    winner = carry_out(run, Silent())
    assert failed and winner.digest != failed[0]
    assert any(one.stopped_at is not None for one in histories(run)["stages"])


def test_a_plan_counts_every_rung_and_says_that_it_is_a_bound(tmp_path: Path) -> None:
    def looked_at(name: str, settings: dict[str, Any]) -> tuple[float, bool]:
        run = Run.create(tmp_path / name, check_search(settings, source="race"))
        (work,) = [
            one
            for one in foreseen(run, read_data(run.recipe))
            if getattr(one, "name", "") == "stages: scoring"
        ]
        assert isinstance(work, Work)
        return work.macs, work.at_most

    plain, bound = looked_at("plain", raced())
    assert not bound
    race, bound = looked_at("race", raced(first=4, groups=4, growth=2))
    # 12 images and 2 batches of 4, beside rungs of 4 and 8 with as much recalibration each.
    assert bound and race / plain == pytest.approx((12 + 4 + 8 + 3 * 8) / (12 + 8))


def test_only_candidates_of_one_level_and_not_of_later_rounds_are_compared() -> None:
    images = np.random.default_rng(1).normal(30.0, 10.0, size=100)
    race = Race(RACE, images=400, mini_batch=8, keep=KEEP)
    behind = record(0, images - 5 + 0.01 * np.arange(100), 64)
    assert race.stops([behind, record(1, images, 64)], 0, 64) is not None
    assert race.stops([behind, record(1, images, 64, genes=2)], 0, 64) is None
    assert race.stops([behind, record(1, images, 64, round=1)], 0, 64) is None
    assert race.stops(
        [replace(behind, attributes=behind.attributes | {ROUND: 1}), record(1, images, 64)], 0, 64
    )


@pytest.mark.parametrize("seen", [64, 160])
def test_equal_candidates_are_stopped_as_rarely_as_the_level_says(seen: int) -> None:
    """Equal on all 200 images, so whoever is behind on some of them is behind by chance."""
    draws = np.random.default_rng(2)
    race = Race(RACE, images=200, mini_batch=8, keep=KEEP)
    stopped, tries = 0, 3000
    for _ in range(tries):
        images = draws.normal(size=200)
        apart = draws.normal(size=200)
        other = images + apart - apart.mean()
        order = draws.permutation(200)
        history = [record(0, images[order], seen), record(1, other[order], seen)]
        stopped += race.stops(history, 0, seen) is not None
    # Three standard deviations of the count, and a tenth of the level for what the t quantile takes for granted.
    assert abs(stopped / tries - 0.05) < 3 * math.sqrt(0.05 * 0.95 / tries) + 0.005


def raced(**race: Any) -> dict[str, Any]:
    settings = [
        "data.digits.train_images=48",
        "batch=9",
        "retrain=null",
        "dilations.controller.options.beam=2",
    ]
    data = apply_overrides(read_yaml(TINY), settings)
    for phase in ("stages", "dilations"):
        data[phase]["supernet"]["score_batch"] = 2
        data[phase]["race"] = race or None
    return data


def test_a_race_finds_a_winner_and_decides_the_same_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", check_search(raced(first=4, groups=4, level=0.2), source="race"))
    winner = carry_out(run, Silent())
    assert isinstance(winner, Architecture)
    trials = histories(run)
    stopped = [one for records in trials.values() for one in records if one.stopped_at is not None]
    assert stopped, "nobody was stopped, so nothing was tried here"
    assert all("are better by more than chance" in str(one.reason) for one in stopped)
    assert {one.state for records in trials.values() for one in records} == {"complete", "pruned"}
    # Whoever was stopped has looked at fewer images than who was not.
    finished = [one for one in trials["stages"] if one.state == "complete"]
    early = [one for one in trials["stages"] if one.stopped_at is not None]
    assert max(one.images_seen for one in early) < min(one.images_seen for one in finished)
    for found in replay_run(run):
        assert found.difference is None, found
    assert winner.digest not in {one.digest for one in stopped}


def test_a_race_that_cannot_be_run_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", check_search(raced(first=12, groups=4), source="race"))
    with pytest.raises(ConfigError, match=r"stages\.race\.first: found 12"):
        carry_out(run, Silent())
    assert not (run.directory / "stages").exists()
    with pytest.raises(ConfigError, match=r"allowed with stages\.race is rounds"):
        check_search(raced(first=4) | {"order": "free"}, source="race")
    learns = raced(first=4)
    learns["stages"]["controller"] = {"name": "aging_evolution", "budget": 6}
    with pytest.raises(
        ConfigError, match=r"stages\.controller.*allowed with stages\.race are exhaustive, greedy, random"
    ):
        check_search(learns, source="race")
    with pytest.raises(ConfigError, match=r"level.*0\.7.*between 0 and 0\.5"):
        check(CRNASRecipe, raced(first=4, level=0.7), source="race")
