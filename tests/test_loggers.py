"""Loggers: the same numbers for each, from what is durable; nothing doubled, and no failure of theirs is a search's."""

import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import nas.loggers.guarded
from nas.cli import app
from nas.config import apply_overrides, read_yaml
from nas.loggers.base import About, Ending, RunLogger, Scalar
from nas.loggers.catalog import LOGGERS, Entry, require_packages
from nas.loggers.listening import TrialScalars, listening
from nas.loggers.metrics_tail import MetricsTail
from nas.loggers.mlflow import flat
from nas.methods.catalog import check_search, procedure
from nas.progress import RunProgress, Silent
from nas.run import Run
from nas.show import histories
from nas.testing import SeparableSpace
from nas.trials import Record
from search_spaces.errors import ConfigError, RunError
from search_spaces.randomness import rng_for
from trainers.metrics_log import MetricsLog

RECIPES = Path(__file__).parent / "recipes"
SPACE = SeparableSpace(3, 3)


class Kept:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.about: About | None = None
        self.found: list[Scalar] = []
        self.ending: Ending | None = None
        self.threads: set[str] = set()

    def begin(self, about: About) -> None:
        self.threads.add(threading.current_thread().name)
        self.about = about

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        assert scalars
        self.found += scalars

    def end(self, ending: Ending) -> None:
        self.ending = ending

    def values(self, group: str, name: str) -> list[tuple[int, float]]:
        return [(one.step, one.value) for one in self.found if (one.group, one.name) == (group, name)]


class Raising(Kept):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def begin(self, about: About) -> None:
        super().begin(about)
        self._raise("begin")

    def scalars(self, scalars: Sequence[Scalar]) -> None:
        super().scalars(scalars)
        self._raise("scalars")

    def end(self, ending: Ending) -> None:
        super().end(ending)
        self._raise("end")

    def _raise(self, where: str) -> None:
        if where == self.where:
            raise ConnectionError("the server is\ngone")


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@contextmanager
def logged(
    monkeypatch: pytest.MonkeyPatch, directory: Path, progress: RunProgress, **loggers: RunLogger
) -> Iterator[RunProgress]:
    """A progress with loggers of the test."""
    for name, logger in loggers.items():
        monkeypatch.setitem(LOGGERS, name, Entry(package="sys", make=lambda logger=logger: logger))
    about = About(name="test", directory=directory)
    with listening(list(loggers), progress, about) as listener:
        yield listener


def record(number: int, value: float | None = None, **rest: Any) -> Record:
    one = SPACE.sample(rng_for(0, number))
    rest = {"state": "complete", **rest}
    return Record(number=number, phase="toy", candidate=one, digest=one.digest, value=value, **rest)


def searched(listener: RunProgress, records: Sequence[Record], before: int = 0) -> None:
    listener.searching("toy", tuple(records[:before]), workers=1, unit="", text=str)
    for one in records[before:]:
        listener.told(one)


def test_the_numbers_of_trials_come_in_their_order_with_the_best_so_far() -> None:
    """A viewer drops what comes before a step that is no larger; free searches and limits tell out of order."""
    phase = TrialScalars("toy")
    pruned = record(1, 50.0, state="pruned", reason="poor", intermediate={25: 50.0})
    assert phase.add(pruned) == [] and phase.add(record(3, 9.0)) == []
    found = phase.add(record(0, 12.5, attributes={"macs": 7, "lost": 2, "ok": True, "text": "a"}))
    assert [(one.step, one.name, one.value) for one in found] == [
        (0, "score", 12.5),
        (0, "best", 12.5),
        (0, "failed", 0.0),
        (0, "pruned", 0.0),
        (0, "macs", 7.0),
        (1, "best", 12.5),
        (1, "failed", 0.0),
        (1, "pruned", 1.0),
        (1, "score at step 25", 50.0),
    ]
    assert {one.group for one in found} == {"toy/trials"}
    assert phase.add(pruned) == [], "once"
    rest = phase.rest()
    assert [one.step for one in rest] == [3] * 4 and rest[1].value == 12.5
    failed = phase.add(record(2, state="failed", reason="loss is nan", attributes={"AP": float("nan")}))
    assert [(one.step, one.name) for one in failed][:3] == [(2, "best"), (2, "failed"), (2, "pruned")]


def test_a_metrics_file_is_given_once_though_it_is_cut_back_and_torn(tmp_path: Path) -> None:
    path = tmp_path / "training/metrics.jsonl"
    log, tail = MetricsLog(path), MetricsTail(path, "here")

    def step(steps: int) -> dict[str, Any]:
        return {"kind": "step", "steps": steps, "loss": steps / 8, "terms": {"box": float("nan")}, "lr": 0.1}

    def new() -> list[tuple[int, str, float]]:
        return [(one.step, one.name, one.value) for one in tail.new()]

    assert new() == [], "it is not there yet"
    log.append(step(1))
    log.append(step(21))
    assert new() == [(1, "loss", 0.125), (1, "lr", 0.1), (21, "loss", 2.625), (21, "lr", 0.1)]
    assert new() == []
    evaluation = {"kind": "evaluation", "steps": 30, "epoch": 1.0, "metrics": {"AP": 0.25}}
    text = json.dumps(evaluation) + "\n"
    with path.open("a") as file:
        file.write(text[:20])
    assert new() == [], "half a line is none yet"
    with path.open("a") as file:
        file.write(text[20:])
    assert new() == [(30, "AP", 0.25)]
    log.truncate(21)  # stopped, and resumed from a checkpoint
    assert new() == []
    log.append(evaluation)
    log.append(step(41))
    assert new() == [(41, "loss", 5.125), (41, "lr", 0.1)]
    log.truncate(0)
    log.append(step(1))
    assert new() == []


@pytest.mark.parametrize("where", ["begin", "scalars", "end"])
def test_a_logger_that_raises_is_switched_off_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bad, good, heard = Raising(where), Kept(), Heard()
    with logged(monkeypatch, tmp_path, heard, bad=bad, good=good) as listener:
        for number in range(40):
            searched(listener, [record(one, float(one)) for one in range(number + 1)], before=number)
    assert good.values("toy/trials", "score") == [(number, float(number)) for number in range(40)]
    assert good.ending == "finished"
    assert heard.said == [
        "warning: the logger bad is switched off, the run goes on: ConnectionError: the server is gone"
    ], "once"
    assert (bad.ending is None) == (where != "end"), "nothing more is asked of it"
    assert good.threads == {"logger good"} and bad.threads == {"logger bad"}, "none in the search's own"


def test_a_logger_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.loggers.guarded, "FAREWELL", 0.1)
    release, heard, good = threading.Event(), Heard(), Kept()

    class Hanging(Kept):
        def scalars(self, scalars: Sequence[Scalar]) -> None:
            release.wait(60)

    with logged(monkeypatch, tmp_path, heard, hanging=Hanging(), good=good) as listener:
        searched(listener, [record(0, 1.0)])
    release.set()
    assert heard.said[0].startswith("warning: the logger hanging is not done 0.1 s after the run and is left")
    for _ in range(6000):
        if good.ending is not None:
            break
        time.sleep(0.01)
    assert good.values("toy/trials", "score") == [(0, 1.0)] and good.ending == "finished"


@pytest.mark.parametrize(
    ("error", "ending"), [(None, "finished"), (KeyboardInterrupt, "stopped"), (RunError, "failed")]
)
def test_how_it_ended_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None, ending: str
) -> None:
    kept = Kept()

    def carried_out() -> None:
        with logged(monkeypatch, tmp_path, Silent(), kept=kept) as listener:
            searched(listener, [record(0, 1.0), record(2, 3.0)])
            if error is not None:
                raise error

    if error is None:
        carried_out()
    else:
        with pytest.raises(error):
            carried_out()
    assert kept.ending == ending
    assert kept.values("toy/trials", "score") == [(0, 1.0), (2, 3.0)], "also what waited for trial 1"


class Events:
    """What a stand-in was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def of(self, name: str) -> list[Any]:
        return [found for one, found in self.calls if one == name]


def stand_in_mlflow(events: Events) -> tuple[ModuleType, ModuleType]:
    """The part of MLflow that is used, with its limits."""

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> None:
            events.calls.append(("experiment", name))

        def create_experiment(self, name: str) -> str:
            return f"id of {name}"

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            events.calls.append(("run", (experiment, run_name, tags)))
            return SimpleNamespace(info=SimpleNamespace(run_id="7"))

        def log_batch(self, run: str, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
            assert run == "7" and len(metrics) <= 1000 and len(params) <= 100
            events.calls += [("metric", one) for one in metrics] + [("parameter", one) for one in params]

        def set_terminated(self, run: str, status: str) -> None:
            events.calls.append(("end", (run, status)))

    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    entities.Metric = lambda key, value, timestamp, step: (key, value, step)  # type: ignore[attr-defined]
    entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
    return module, entities


def stand_in_wandb(events: Events) -> ModuleType:
    """The part of Weights & Biases that is used."""

    def init(**given: Any) -> Any:
        events.calls.append(("init", given))
        return SimpleNamespace(
            log=lambda row: events.calls.append(("row", row)),
            define_metric=lambda name, step_metric: events.calls.append(("axis", (name, step_metric))),
            finish=lambda exit_code: events.calls.append(("end", exit_code)),
        )

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    module.Settings = lambda **given: given  # type: ignore[attr-defined]
    module.setup = lambda settings: events.calls.append(("setup", settings))  # type: ignore[attr-defined]
    return module


def test_mlflow_gets_batches_of_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events()
    module, entities = stand_in_mlflow(events)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    require_packages(["mlflow"])
    settings = {
        "name": "test",
        "empty": [],
        "deep": {"a": 1, "b": {"c": "x" * 900}},
        **{f"k{n}": n for n in range(150)},
    }
    with listening(
        ["mlflow"], Silent(), About(name="test", directory=tmp_path, settings=settings)
    ) as listener:
        odd = {"my (own) number": 3, "AP50": 4.0}
        searched(listener, [record(number, float(number), attributes=odd) for number in range(400)])
    assert events.of("experiment") == ["mine"]
    assert events.of("run") == [("id of mine", "test", {"run_directory": str(tmp_path)})]
    parameters = dict(events.of("parameter"))
    assert parameters["deep.a"] == "1" and len(parameters["deep.b.c"]) == 500 and "empty" not in parameters
    assert len(parameters) == 153
    metrics = events.of("metric")
    assert len(metrics) == 400 * 6
    assert [one for one in metrics if one[0] == "toy/trials/score"] == [
        ("toy/trials/score", float(number), number) for number in range(400)
    ]
    assert ("toy/trials/my _own_ number", 3.0, 12) in metrics
    assert events.calls[-1] == ("end", ("7", "FINISHED"))
    assert flat({"a": None, "b": False, "c": {}}) == {"b": "False"}


def test_wandb_gets_a_row_a_step_on_the_axis_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    monkeypatch.setitem(sys.modules, "wandb", stand_in_wandb(events))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    training = tmp_path / "retrain/abc/seed-1000"
    log = MetricsLog(training / "metrics.jsonl")
    log.append({"kind": "step", "steps": 1, "loss": 2.5, "terms": {}, "lr": 0.1})
    about = About(name="test", directory=tmp_path, settings={"seed": 3})
    with pytest.raises(KeyboardInterrupt), listening(["wandb"], Silent(), about) as listener:
        listener.training(training)
        listener.training(training)
        searched(listener, [record(0, 1.5), record(1, state="failed", reason="no")])
        raise KeyboardInterrupt
    assert events.calls[0] == ("setup", {"silent": True}), "it asks nobody anything"
    (given,) = events.of("init")
    assert given["project"] == "vertebra" and given["dir"] == str(tmp_path) and given["config"]["seed"] == 3
    assert given["settings"] == {"console": "off", "silent": True}
    group, other = "toy/trials", "retrain/abc/seed-1000"
    rows = [row for row in events.of("row") if f"{group}/step" in row]
    assert rows == [
        {
            f"{group}/score": 1.5,
            f"{group}/best": 1.5,
            f"{group}/failed": 0,
            f"{group}/pruned": 0,
            f"{group}/step": 0,
        },
        {f"{group}/best": 1.5, f"{group}/failed": 1, f"{group}/pruned": 0, f"{group}/step": 1},
    ]
    assert {f"{other}/loss": 2.5, f"{other}/lr": 0.1, f"{other}/step": 1} in events.of("row")
    assert len(events.of("row")) == 3
    assert set(events.of("axis")) == {(f"{one}/*", f"{one}/step") for one in (group, other)}
    assert events.calls[-1] == ("end", 1)


def test_a_package_that_is_not_there_is_said_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(LOGGERS, name, replace(LOGGERS[name], package=f"no_such_{name}"))
    with pytest.raises(ConfigError) as caught:
        require_packages(["tensorboard", "mlflow", "wandb"])
    assert str(caught.value).splitlines() == [
        f"loggers: found {name}, but the package no_such_{name} is not installed; install it with: pip install "
        f"no_such_{name}, or take {name} out of the list"
        for name in ("mlflow", "wandb")
    ]
    recipe = str(RECIPES / "tiny.yaml")
    run = CliRunner().invoke(
        app, ["search", recipe, "--run", str(tmp_path / "a"), "--set", "loggers=[wandb]"]
    )
    assert run.exit_code == 2 and f"error: {recipe}: loggers: found wandb" in run.output
    assert not (tmp_path / "a").exists()
    train = [str(RECIPES / "train.yaml"), "--run", str(tmp_path / "b"), "--set", "loggers=[mlflow]"]
    trained = CliRunner().invoke(app, ["train", "resnet18", *train])
    assert trained.exit_code == 2 and "error: loggers: found mlflow" in trained.output
    assert not (tmp_path / "b").exists()


def small(*sets: str) -> Any:
    data = apply_overrides(read_yaml(RECIPES / "tiny.yaml"), ["dilations=null", *sets])
    return check_search(data, source="tiny.yaml")


def test_loggers_are_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    recipe = small()
    with pytest.raises(
        ConfigError, match=r"loggers: found .*; allowed is each of tensorboard, mlflow and wandb once"
    ):
        small("loggers=[wandb, wandb]")
    run = Run.create(tmp_path / "run", recipe)
    # A run of a version that knew of no loggers.
    path = run.directory / "recipe.yaml"
    path.write_text(path.read_text().replace("loggers: []\n", ""))
    assert "loggers:" not in path.read_text()
    assert Run.create(tmp_path / "run", recipe).digest == run.digest
    more = run.extended(["loggers=[tensorboard]"])
    assert more.recipe.loggers == ("tensorboard",)
    more.keep()
    assert Run.open(tmp_path / "run").recipe.loggers == ("tensorboard",)


def events_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder))  # type: ignore[no-untyped-call]
    accumulator.Reload()  # type: ignore[no-untyped-call]
    names = accumulator.Tags()["scalars"]  # type: ignore[no-untyped-call]
    return {
        name: [(one.step, one.value) for one in accumulator.Scalars(name)]  # type: ignore[no-untyped-call]
        for name in names
    }


class Stop(Silent):
    """As Ctrl-C, after so many trials or steps of a phase."""

    def __init__(self, phase: str, at: int) -> None:
        self._phase, self._at, self._here = phase, at, False

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        self._here = title.startswith(self._phase)

    def advance(self, done: int, note: str = "") -> None:
        if self._here and done == self._at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def logged_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Stopped in the middle of a supernet's training, of a search, and of a training to completion."""
    directory = tmp_path_factory.mktemp("logged") / "run"
    run = Run.create(directory, small("loggers=[tensorboard]"))
    for phase, at in (("stages: supernet", 7), ("stages: search", 3), ("training", 10)):
        with pytest.raises(KeyboardInterrupt):
            procedure(run.recipe).carry_out(run, Stop(phase, at))
    procedure(run.recipe).carry_out(run, Silent())
    return run


def test_tensorboard_reads_what_the_run_holds_and_nothing_twice(logged_run: Run) -> None:
    folder = logged_run.directory / "tensorboard"
    (history,) = histories(logged_run).values()
    found = events_of(folder / "stages/trials")
    assert len(history) == 6
    for (step, value), trial in zip(found["score"], history, strict=True):
        assert step == trial.number and value == pytest.approx(trial.value, rel=1e-6)
    best = [max(one.value or 0.0 for one in history[: end + 1]) for end in range(6)]
    assert [value for _, value in found["best"]] == pytest.approx(best, rel=1e-6)
    assert found["failed"] == [(number, 0.0) for number in range(6)]
    assert {"AP50", "macs", "params", "seconds"} <= set(found)
    trainings = [logged_run.directory / "stages", *logged_run.directory.glob("retrain/*/*")]
    assert len(trainings) == 3
    for training in trainings:
        lines = [json.loads(line) for line in (training / "metrics.jsonl").read_text().splitlines()]
        found = events_of(folder / training.relative_to(logged_run.directory))
        for name in ("loss", "lr"):
            steps = [(one["steps"], one[name]) for one in lines if one["kind"] == "step"]
            assert steps and found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in steps]
        points = [(one["steps"], one["metrics"]["AP"]) for one in lines if one["kind"] == "evaluation"]
        assert found.get("AP", []) == [(step, pytest.approx(value, abs=1e-7)) for step, value in points]
    for one in {file.parent for file in folder.rglob("events.*")}:
        assert len(list(one.glob("events.*"))) == 1, "a start takes away what it holds whole itself"


def test_who_listens_changes_nothing(logged_run: Run, tmp_path: Path) -> None:
    """Stopped and logged, or neither: the same trials, winner and trainings."""
    plain = Run.create(tmp_path / "run", small("retrain.seeds=1"))
    procedure(plain.recipe).carry_out(plain, Silent())
    assert plain.read_winner() == logged_run.read_winner()

    def trials(run: Run) -> list[tuple[Any, ...]]:
        (history,) = histories(run).values()
        return [(one.digest, one.value, one.state) for one in history]

    assert trials(plain) == trials(logged_run)
    for training in plain.directory.glob("retrain/*/*"):
        other = logged_run.directory / training.relative_to(plain.directory)
        for name in ("training.yaml", "metrics.jsonl"):
            assert (training / name).read_text() == (other / name).read_text(), (
                "a training's record names no logger"
            )


def test_optuna_alone_reads_the_journal_that_a_dashboard_shows(logged_run: Run) -> None:
    storage = JournalStorage(JournalFileBackend(str(logged_run.directory / "study.log")))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    (history,) = histories(logged_run).values()
    assert [(one.number, one.value, one.state.name.lower()) for one in study.trials] == [
        (one.number, one.value, one.state) for one in history
    ]
    assert study.best_value == max(one.value for one in history if one.value is not None)


def test_the_page_says_how(logged_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/watch.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block.replace("runs/mine", str(logged_run.directory)), "watch.md", "exec"), {})
    (history,) = histories(logged_run).values()
    best = max(one.value for one in history if one.value is not None)
    assert capsys.readouterr().out == f"stages {len(history)} {best}\n"
    assert set(re.findall(r"\[(tensorboard[\w, ]*)\]", page)) == {"tensorboard", "tensorboard, mlflow"}


def test_a_training_of_its_own_is_logged_and_may_be_logged_otherwise_next_time(tmp_path: Path) -> None:
    recipe = str(RECIPES / "train.yaml")
    run = tmp_path / "run"
    arguments = ["train", "resnet18", recipe, "--run", str(run), "--json"]
    found = [
        CliRunner().invoke(app, [*arguments, *more]) for more in (["--set", "loggers=[tensorboard]"], [])
    ]
    assert [one.exit_code for one in found] == [0, 0], found[0].output
    assert found[0].stdout == found[1].stdout
    events = events_of(run / "tensorboard/training")
    result = json.loads((run / "result.json").read_text())
    assert [step for step, _ in events["loss"]] == [1, 8]
    assert [value for _, value in events["AP"]] == pytest.approx(
        [one["AP"] for one in result["curve"]], abs=1e-7
    )
