"""A budget: what a person may write, how it is divided, and a search that stays within it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nas.budget import Budget, Portion, divide, more, read_budget, too_small
from nas.config import apply_overrides, check, read_yaml
from nas.controllers.base import DONE, Done
from nas.ledger import Books
from nas.methods import retraining
from nas.methods.budgeting import MARGIN, TABLE, Allowance, table_room, while_room, within
from nas.methods.catalog import procedure
from nas.methods.data import read_data
from nas.methods.granting import grant
from nas.methods.rehearsing import repeated, until_one_works
from nas.methods.replaying import replay_run
from nas.methods.retraining import job_recipe
from nas.methods.searching import controller_for, opened
from nas.methods.spaces import stage_space
from nas.progress import Silent
from nas.recipes.controller import ControllerRecipe
from nas.recipes.crnas import CRNASRecipe
from nas.run import Run
from nas.show import histories, summary
from nas.study import History, Record, Study
from nas.training import TrainingJob
from search_spaces.architecture import Architecture
from search_spaces.errors import CandidateFailed, ConfigError, RunError
from search_spaces.space import SearchSpace
from trainers.loop import CHECKPOINT

TINY = Path(__file__).parent / "recipes/tiny.yaml"
SHORT = (
    "dilations=null",
    "stages.supernet.train.steps=1",
    "stages.supernet.recalibration_batches=1",
    "retrain.train.steps=1",
    "data.digits.val_images=2",
)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("6h", 21600, "seconds"),
        ("90 min", 5400, "seconds"),
        ("1.5d", 129600, "seconds"),
        ("200 trials", 200, "trials"),
        ("1 trial", 1, "trials"),
        ("1e18 MACs", 1e18, "MACs"),
        ("2.5E+3 macs", 2500, "MACs"),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: str, amount: float, unit: str) -> None:
    assert read_budget(text) == Budget(amount=amount, unit=unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["6", "h", "-6h", "0h", "6 weeks", "200trails", "1e18", "1e400 MACs", "0.4 trials"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"budget: found .*; allowed is a time \(6h"):
        read_budget(text)
    with pytest.raises(ConfigError, match=r"tiny: budget: found .*; allowed is a time"):
        check(CRNASRecipe, {**read_yaml(TINY), "budget": text}, source="tiny")


def portion(name: str, wanted: int, least: int, each: float) -> Portion:
    return Portion(name=name, unit="units", wanted=wanted, least=least, each=each)


PORTIONS = (portion("supernet", 100, 100, 1.0), portion("search", 50, 4, 2.0), portion("table", 16, 2, 10.0))


def test_every_work_gets_its_least_and_the_same_part_of_what_it_wants_beyond() -> None:
    assert divide(PORTIONS, 1e9) == {"supernet": 100, "search": 50, "table": 16}
    assert divide(PORTIONS, 128) == {"supernet": 100, "search": 4, "table": 2}
    assert divide(PORTIONS, 127.9) is None
    for amount in range(128, 400, 7):
        units = divide(PORTIONS, amount)
        assert units is not None
        assert sum(units[one.name] * one.each for one in PORTIONS) <= amount
        parts = [(units[one.name] - one.least) / (one.wanted - one.least) for one in PORTIONS[1:]]
        assert abs(parts[0] - parts[1]) < 1 / 14 + 1e-9, "the same part of each, but for whole units"
    free = (portion("search", 50, 4, 1.0), portion("table", 16, 2, 0.0))
    assert divide(free, 10) == {"search": 10, "table": 16}


def test_what_does_not_fit_and_what_more_would_buy_are_said() -> None:
    budget = Budget(amount=100, unit="seconds")
    text = str(too_small(budget, PORTIONS, gone=8))
    assert "found 1" in text and "takes about 2.3 min: supernet 1.7 min (100 units), table 20 s" in text
    assert "8 s of them spent before" in text
    units = {"supernet": 100, "search": 20, "table": 16}
    assert more(budget, PORTIONS, units) == "30 units of search: all of the recipe takes about 6.0 min"
    assert more(budget, PORTIONS, {one.name: one.wanted for one in PORTIONS}) is None


def run_in(directory: Path, *overrides: str) -> Run:
    plain = apply_overrides(read_yaml(TINY), [*SHORT, *overrides])
    return Run.create(directory, check(CRNASRecipe, plain, source="tiny"))


def allowance(run: Run, **fields: object) -> Allowance:
    """Room for 4 to 100 candidates at 10 s each and 2 to 8 trainings at 100 s each."""
    made = Allowance(
        run=run,
        text="1000s",
        portions=(portion("stages: scoring", 6, 4, 10.0), portion(TABLE, 8, 2, 100.0)),
        units={"stages: scoring": 6, TABLE: 4},
        trials={"stages": 6},
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def record(number: int, value: float | None, run: Run) -> Record:
    found = list(stage_space(run.recipe.space).enumerate())[number]  # type: ignore[attr-defined]
    state = "complete" if value is not None else "running"
    return Record(
        number=number,
        phase="stages",
        candidate=found,
        digest=found.digest,
        value=value,
        state=state,  # type: ignore[arg-type]
    )


def test_a_phase_ends_where_the_clock_leaves_no_room_and_stays_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(tmp_path, "budget=1000s")
    allowance(run).write()
    recipe = ControllerRecipe(name="exhaustive")
    space = stage_space(run.recipe.space)  # type: ignore[attr-defined]

    def ask(history: tuple[Record, ...], elapsed: float) -> object:
        monkeypatch.setattr(Books, "elapsed", lambda self: elapsed)
        return while_room(run, "stages", controller_for(recipe, space, 0), {}).ask(history)

    told = tuple(record(number, 1.0, run) for number in range(4))
    # 4 trainings are reserved, one more candidate is 10 s, and half of the margin is kept.
    last = 1000 * (1 - MARGIN / 2) - 400 - 10
    assert ask(told[:3], 2000) not in (DONE, None), "so many there are always"
    assert ask(told, last - 1) not in (DONE, None)
    under_way = (*told, record(4, None, run))
    assert ask(under_way, last - 1) is None, "what is under way needs room too, and is waited for"
    assert Allowance.of(run).closed == {"stages": 5}  # type: ignore[union-attr]
    assert ask((*told, record(4, 1.0, run)), 0) is DONE, "a resumed search ends at the same trial"


def test_trainings_of_the_table_are_begun_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(tmp_path, "budget=1000s")
    assert table_room(run) is None, "nothing was granted yet"
    allowance(run).write()
    has_room = table_room(run)
    assert has_room is not None
    monkeypatch.setattr(Books, "elapsed", lambda self: 800)
    assert has_room(0, 0) and has_room(2, 0) and not has_room(2, 1) and not has_room(4, 0)
    monkeypatch.setattr(Books, "elapsed", lambda self: 990)
    assert has_room(1, 1) and not has_room(2, 0), "winner and baseline are trained once in any case"
    line = Allowance.of(run).last_line({})  # type: ignore[union-attr]
    assert line is not None and line.endswith(
        "ended early for lack of room: final table. More would buy 6 units of final table: all of the recipe takes "
        "about 14.3 min"
    )


def test_what_cannot_be_looked_at_whole_is_looked_at_by_chance(tmp_path: Path) -> None:
    run = run_in(tmp_path, "budget=5 trials")
    every = ControllerRecipe(name="exhaustive")
    assert within(run, "stages", every) is every, "nothing was granted yet"
    allowance(run, trials={"stages": 5}, drawn=["stages"]).write()
    assert within(run, "stages", every) == ControllerRecipe(name="random", budget=5)
    assert within(run, "other", every) is every
    allowance(run, trials={"stages": 5}).write()
    some = ControllerRecipe(name="tpe", budget=50)
    assert within(run, "stages", some) == ControllerRecipe(name="tpe", budget=5)
    assert within(run, "stages", every) is every, "begun in the order of the genes, it stays so"


def test_a_search_keeps_to_its_trials(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", "budget=4 trials", "retrain.seeds=2")
    procedure(run.recipe).carry_out(run, Silent())
    assert {name: len(history) for name, history in histories(run).items()} == {"stages": 4}
    found = summary(run.directory)
    assert found["state"] == "complete" and found["budget"] == (
        "4 trials of 4 trials spent. More would buy 2 candidates of stages: scoring: all of the recipe takes about "
        "6 trials"
    )
    assert len(list(run.directory.glob("retrain/*/*/result.json"))) in (2, 4), "trainings are no trials"
    assert all(one.difference is None for one in replay_run(run))
    assert "Budget: 4 trials of 4 trials spent" in (run.directory / "report.html").read_text()
    # The winner was trained: what it followed from stays as it is, and seeds are added.
    trained = len(list(run.directory.glob("retrain/*/*/result.json")))
    for change in (["budget=6 trials"], ["retrain.seeds=3"], ["budget=null"], ["budget=1 trial"]):
        later = Run.open(run.directory).extended(change)
        if change == ["budget=1 trial"]:
            with pytest.raises(ConfigError, match="nas resume takes a larger one, or --set budget=null"):
                procedure(later.recipe).carry_out(later, Silent())
        else:
            procedure(later.recipe).carry_out(later, Silent())
        assert len(histories(later)["stages"]) == 4 and summary(run.directory)["state"] == "complete"
        assert all(one.difference is None for one in replay_run(later))
    assert Run.open(run.directory).recipe.budget is None, "what was refused was not kept"
    assert len(list(run.directory.glob("retrain/*/*/result.json"))) == trained * 3 // 2


def test_multiply_adds_are_divided_without_measuring(tmp_path: Path) -> None:
    run = run_in(tmp_path / "a", "budget=1e18 MACs", "retrain.seeds=3")
    data = read_data(run.recipe)
    grant(run, data, Silent())
    whole = Allowance.of(run)
    assert whole is not None and whole.units == {
        "stages: supernet training": 1,
        "stages: scoring": 6,
        TABLE: 6,
    }
    total = sum(whole.units[one.name] * one.each for one in whole.portions)
    less = run_in(tmp_path / "b", f"budget={0.8 * total:.6e} MACs", "retrain.seeds=3")
    grant(less, data, Silent())
    cut = Allowance.of(less)
    assert cut is not None and 2 <= cut.units[TABLE] < 6
    assert sum(cut.units[one.name] * one.each for one in cut.portions) <= 0.8 * total
    with pytest.raises(ConfigError, match=r"budget: found .* MACs, but the least that this recipe can do"):
        grant(run_in(tmp_path / "c", "budget=1000 MACs"), data, Silent())
    grant(run_in(tmp_path / "d"), data, Silent())
    assert not (tmp_path / "d/budget.json").exists()


class Picky:
    """Proposes what is within the limits only, as a controller may learn to."""

    def __init__(self, space: SearchSpace, within: Callable[[Architecture], bool]) -> None:
        self.found = [one for one in space.enumerate() if within(one)]

    def ask(self, history: History) -> Architecture | Done:
        return self.found[len(history)] if len(history) < len(self.found) else DONE

    def winner(self, history: History) -> Architecture | None:
        return None


def test_a_phase_ends_with_its_units_whatever_share_its_limits_were_to_reject(tmp_path: Path) -> None:
    run = run_in(tmp_path, "budget=60 trials")
    made = allowance(
        run,
        text="60 trials",
        portions=(portion("stages: scoring", 6, 4, 5.0),),
        units={"stages: scoring": 5},
        trials={"stages": 25},
    )
    made.write()
    space = stage_space(run.recipe.space)  # type: ignore[attr-defined]
    controller = while_room(run, "stages", Picky(space, lambda one: True), {})
    told = tuple(record(number, 1.0, run) for number in range(5))
    assert controller.ask(told[:4]) not in (DONE, None) and controller.ask(told) is DONE
    # Trials of all phases count together.
    made.write()
    others = {"before": tuple(record(0, 1.0, run) for _ in range(53))}
    full = while_room(run, "stages", Picky(space, lambda one: True), others)
    assert full.ask(told[:3]) not in (DONE, None) and full.ask(told[:4]) is DONE


def test_a_training_under_way_is_finished_whatever_room_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(retraining, "train_or_fail", lambda job, progress: done.append(job.directory.name))
    run = run_in(tmp_path)
    baseline = stage_space(run.recipe.space).baseline  # type: ignore[attr-defined]
    jobs = [
        TrainingJob(
            architecture=baseline,
            recipe=job_recipe(run.recipe, run.recipe.retrain.train, seed),  # type: ignore[union-attr]
            directory=tmp_path / f"seed-{seed}",
        )
        for seed in range(3)
    ]
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / CHECKPOINT).touch()
    retraining.run_jobs(jobs, 1, Silent(), "table", has_room=lambda begun, under_way: False)
    assert done == ["seed-1"]


def test_a_plan_looks_past_candidates_that_fail() -> None:
    calls = 0

    def some() -> int:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise CandidateFailed("too wide")
        return calls

    assert until_one_works(some) == 3
    assert min(repeated(some, 0.0)) >= 0

    def none() -> None:
        raise CandidateFailed("too wide")

    with pytest.raises(ConfigError, match=r"each of 10 candidates failed when tried out: too wide"):
        until_one_works(none)


def test_who_is_refused_has_spent_nothing_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path)

    def refuse(*place: object, **how: object) -> Study:
        raise RunError("another process is running this search")

    # The real lock knows processes, and this is one.
    monkeypatch.setattr(Study, "open", refuse)
    with pytest.raises(RunError, match="another process"), opened(run, Silent()):
        pass
    assert not (run.directory / "ledger").exists()
