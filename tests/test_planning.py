"""What a plan foresees: who waits for whom, shares with their intervals, and works counted as a run counts them."""

import json
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.config import check, read_yaml
from nas.methods.catalog import check_search, procedure
from nas.methods.costs import phase_costs
from nas.methods.data import read_data
from nas.methods.planning import share_of, table_jobs, workers_here
from nas.planning import (
    Place,
    PlannedSpace,
    Sample,
    Share,
    Work,
    foresee,
    makespan,
    threads_line,
)
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.spinenet import SpineNetRecipe
from nas.run import Run
from nas.saying import duration
from nas.testing import ToySpace
from search_spaces.errors import ConfigError

RECIPES = Path(__file__).parent / "recipes"


def work(by: str, count: int | None = 10) -> Work:
    return check(Work, {"name": "any", "count": count, "unit": "units", "by": by, "macs": 2.0}, source="test")


def test_the_last_of_some_units_ends_when_the_worker_that_was_free_first_has_done_it() -> None:
    assert makespan([3, 1, 1, 1], 1) == 6
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 1, 3], 2) == 4
    assert makespan([], 2) == 0


@pytest.mark.parametrize(
    ("by", "workers", "seconds"),
    [
        ("driver", 8, 20.0),
        # Rounds of 4, 4 and 2 of 2 s each, and one start of 5 s.
        ("engine", 1, 5 + 20.0),
        ("engine", 2, 5 + 4 + 4 + 2),
        ("engine", 8, 5 + 2 + 2 + 2),
        # Every process starts anew.
        ("processes", 1, 70.0),
        ("processes", 5, 14.0),
        ("processes", 64, 7.0),
    ],
)
def test_time_follows_from_who_carries_a_work_out(by: str, workers: int, seconds: float) -> None:
    sample = Sample(seconds=(1.0, 3.0), start=5.0, memory=7)
    if by == "engine":
        sample = Sample(seconds=(2.0,), start=5.0, memory=7)
    found = foresee(work(by), sample, Place(workers=workers), batch=4)
    if by == "processes" and workers != 1:
        assert found.seconds == pytest.approx(makespan([6.0, 8.0] * 5, workers))
    else:
        assert found.seconds == pytest.approx(seconds)
    assert found.busy == 20.0 and found.cost is None


def test_a_faster_place_takes_less_time_and_is_paid_for_whole() -> None:
    sample = Sample(seconds=(1800.0,), start=0.0, memory=7)
    slow = foresee(work("engine"), sample, Place(workers=4), batch=4)
    quick = foresee(work("engine"), sample, Place(workers=4, speed=10, price=3.0), batch=4)
    assert slow.seconds == 3 * 1800.0 and quick.seconds == 540.0
    assert quick.cost == pytest.approx(4 * 3.0 * 540 / 3600)
    assert quick.memory == 4 * 7


def test_a_place_that_does_not_exist_is_refused_in_one_sentence_a_number() -> None:
    with pytest.raises(
        ConfigError, match=r"--devices: found 0; .*\n--speed: found -1; .*\n--price: found -2;"
    ):
        Place(workers=0, speed=-1, price=-2)


def test_a_share_has_wilsons_interval() -> None:
    # Newcombe 1998, table I: 15 of 148.
    low, high = Share(within=15, draws=148, size=10**9).interval
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert Share(within=0, draws=500, size=10**9).interval[0] == 0.0
    assert Share(within=3, draws=None, size=12).interval == (0.25, 0.25)


def test_small_spaces_are_looked_at_whole() -> None:
    space = ToySpace()
    first = next(iter(space.enumerate()))
    planned = PlannedSpace(name="x", space=space, limits=lambda one: None if one == first else "too large")
    assert share_of(planned, seed=0) == Share(within=1, draws=None, size=space.size)


def test_the_thread_line_says_when_workers_have_no_cores() -> None:
    assert threads_line(2, 1, 2, batch=4, engine="processes") == "2 workers of 1 thread each on 2 cores"
    assert "8 threads share 2" in threads_line(4, 2, 2, batch=4, engine="ray")
    assert "2 of 6 workers never score" in threads_line(6, 1, 8, batch=4, engine="ray")


def test_a_time_is_said_with_the_unit_that_suits_it() -> None:
    assert [duration(one, fine=True) for one in (0.5, 12, 119, 120, 5400, 36000, 3 * 86400)] == [
        "0.5 s",
        "12 s",
        "2.0 min",
        "2.0 min",
        "1.5 h",
        "10.0 h",
        "3.0 d",
    ]


def test_works_of_crnas_are_those_of_the_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path, check(CRNASRecipe, read_yaml(RECIPES / "tiny.yaml"), source="tiny"))
    data = read_data(run.recipe)
    works = [one for one in procedure(run.recipe).foreseen(run, data) if isinstance(one, Work)]
    assert [(one.name, one.count, one.by) for one in works] == [
        ("stages: supernet training", 12, "driver"),
        ("stages: scoring", 6, "engine"),
        ("dilations: supernet training", 8, "driver"),
        ("dilations: scoring", 24, "engine"),
    ]
    ((table, job),) = table_jobs(run, data)
    assert (table.name, table.count, job.recipe.seed) == ("final table: trainings", 2, 1000)
    assert workers_here(run.recipe) == {"driver": 1, "engine": 1, "processes": 1}
    for one in works:
        found = procedure(run.recipe).rehearse(run, data, one.name, 0.01, Random(0))
        assert found and min(found) > 0
    assert not (tmp_path / "stages").exists(), "a rehearsal leaves nothing behind"


def test_images_of_several_sizes_count_by_their_pixels(tmp_path: Path) -> None:
    found = []
    for name, sizes in (("plain", []), ("sizes", [0.5, 1.5])):
        recipe = read_yaml(RECIPES / "tiny.yaml")
        recipe["stages"]["supernet"]["train"]["sizes"] = sizes
        recipe["retrain"]["train"]["sizes"] = sizes
        run = Run.create(tmp_path / name, check(CRNASRecipe, recipe, source="tiny"))
        data = read_data(run.recipe)
        works = [one for one in procedure(run.recipe).foreseen(run, data) if isinstance(one, Work)]
        found.append([one.macs for one in (*works, *(table for table, _ in table_jobs(run, data)))])
        run.write_json("stages/spent.json", {"seconds": 1.0, "steps": 12, "images": 48, "warnings": []})
        found[-1].append(phase_costs(run, {"stages": ()}, data.train_set.image_size)[0].macs)
    # The mean of 0.25 and 2.25; scoring and the dilations' supernet are at the stored size.
    for place, (plain, several) in enumerate(zip(*found, strict=True)):
        assert plain and several == pytest.approx((1.25 if place in (0, 4, 5) else 1.0) * plain, rel=1e-9)


def test_what_limits_reject_takes_no_time(tmp_path: Path) -> None:
    plain = read_yaml(RECIPES / "tiny_spinenet.yaml")
    plain["search"]["controller"]["budget"] = 100
    plain["search"]["limits"] = {"macs": 1.0}
    run = Run.create(tmp_path, check(SpineNetRecipe, plain, source="tiny"))
    data = read_data(run.recipe)
    parts = list(procedure(run.recipe).foreseen(run, data))
    (space,) = (one for one in parts if isinstance(one, PlannedSpace))
    search, random = (one for one in parts if isinstance(one, Work))
    share = share_of(space, run.recipe.seed)
    assert share.draws == 500 and 0 < share.value < 1
    assert search.count == random.count and random.like == search.name
    assert search.count == round(100 * share.value)
    networks = [work.name for work, _ in table_jobs(run, data)]
    assert networks == ["final table: trainings", "final table: resnet_fpn"]
    assert min(procedure(run.recipe).rehearse(run, data, search.name, 0.01, Random(0))) > 0


def test_the_command_prints_a_plan_and_leaves_nothing_behind(tmp_path: Path) -> None:
    short = ("dilations=null", "retrain=null", "stages.supernet.recalibration_batches=1")
    words = [
        "plan",
        str(RECIPES / "tiny.yaml"),
        "--measure",
        "0.1",
        "--devices",
        "4",
        "--price",
        "2",
        "--json",
    ]
    for text in short:
        words += ["--set", text]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert [one["name"] for one in plan["works"]] == ["stages: supernet training", "stages: scoring"]
    assert plan["spaces"][0]["size"] == 6 and plan["total"]["there"]["cost"] > 0
    assert plan["total"]["here"]["seconds"] == pytest.approx(
        sum(one["here"]["seconds"] for one in plan["works"]), rel=1e-3
    )


def test_a_recipe_that_cannot_be_carried_out_has_no_plan() -> None:
    recipe = RECIPES / "tiny.yaml"
    result = CliRunner().invoke(app, ["plan", str(recipe), "--set", "detector.levels=[c9]"])
    assert result.exit_code == 2 and result.stderr.startswith("error: ")
    assert check_search(read_yaml(recipe), source="tiny").method == "crnas"
