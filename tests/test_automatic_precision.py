"""``train.amp: auto``: decided once, where a training begins, and from then on a part of its record."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import nas.training
import trainers.precision
from nas.config import apply_overrides, check, read_yaml
from nas.dry_run import dry_run
from nas.loggers.base import About
from nas.methods.catalog import check_search
from nas.progress import RunProgress, Silent
from nas.recipes.any_space import AnyProxyRecipe
from nas.recipes.train_job import TrainJobRecipe
from nas.training import TrainingJob, _settled, evaluate_training, train_bundle, train_to_completion
from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import get_architecture
from search_spaces.errors import ConfigError, RunError
from search_spaces.recipe import FieldError
from trainers.precision import fastest, settled
from trainers.ranks import Ranks
from trainers.recipes import Amp, TrainRecipe

FOLDER = Path(__file__).parent / "recipes"
RECIPES = Path(__file__).parents[1] / "examples/recipes"
CPU = torch.device("cpu")


def recipe(amp: str) -> TrainJobRecipe:
    data = apply_overrides(read_yaml(FOLDER / "train.yaml"), [f"train.amp={amp}"])
    return check(TrainJobRecipe, data, source="train.yaml")


def network() -> Architecture:
    named = get_architecture("resnet18")
    settings = Genes({**named.settings, "widths": (8, 8, 8, 8), "stem": "small"})
    return replace(named, settings=settings, genes=Genes({"blocks": (1, 1, 1, 1), "dilations": (1, 1, 1, 1)}))


def job(directory: Path, amp: str) -> TrainingJob:
    return TrainingJob(architecture=network(), recipe=recipe(amp), directory=directory)


Machine = Callable[[Amp], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this machine one on which a precision is fastest."""
    return lambda amp: monkeypatch.setattr(nas.training, "fastest", lambda device: amp)


class Heard(Silent):
    """What a training says; stops it at a step, as Ctrl-C would."""

    def __init__(self, stop: int | None = None) -> None:
        self.said: list[str] = []
        self.stop = stop

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, note: str = "") -> None:
        if done == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("capabilities", "amp"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "off"),
        ({}, "off"),
    ],
)
def test_a_processor_needs_instructions_for_it(
    capabilities: dict[str, bool], amp: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert fastest(CPU) == amp
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fastest(CPU) == "off", "nothing in torch uses them"


def test_a_torch_that_cannot_tell_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fastest(CPU) == "off"


def test_a_gpu_needs_arithmetic_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, it=native: it)
        assert fastest(torch.device("cuda")) == ("bf16" if native else "off")
    assert fastest(torch.device("mps")) == "off"


def test_what_is_said_stays_and_auto_has_no_precision_before_a_machine_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainers.precision, "fastest", lambda device: "bf16")
    for amp in ("off", "bf16"):
        train = TrainRecipe(steps=1, amp=amp)
        assert settled(train, CPU) is train and train.precision == amp
    train = TrainRecipe(steps=1, amp="auto")
    with pytest.raises(ValueError, match="auto still"):
        _ = train.precision
    assert settled(train, CPU) == replace(train, amp="bf16")


def test_a_training_keeps_the_precision_it_began_with(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explicit, begun = tmp_path / "explicit", tmp_path / "begun"
    expected = train_to_completion(job(explicit, "bf16"))
    machine("bf16")
    heard = Heard(stop=5)
    with pytest.raises(KeyboardInterrupt):
        train_to_completion(job(begun, "auto"), heard)
    assert heard.said == ["train.amp: auto is bf16 for this training"]
    assert read_yaml(begun / "training.yaml") == read_yaml(explicit / "training.yaml")
    # It goes on where float32 is faster.
    machine("off")
    with pytest.raises(RunError, match="another backbone or recipe"):
        train_to_completion(job(begun, "off"))
    found = train_to_completion(job(begun, "auto"))
    assert found["train"]["amp"] == "bf16" and found["recipe"] == expected["recipe"]
    assert found["metrics"] == expected["metrics"] and found["curve"] == expected["curve"]
    weights, others = (load_file(folder / "detector.safetensors") for folder in (begun, explicit))
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    # And is not done again, whoever asks.
    monkeypatch.setattr(nas.training, "Trainer", None)
    assert train_to_completion(job(begun, "auto")) == found == train_to_completion(job(begun, "bf16"))


class OneOfTwo(Ranks):
    """One of two ranks; ``recorded`` is what the first has read, ``others`` what is fastest for the other one."""

    recorded: Amp | None = None
    others: Amp = "off"

    def of_first(self, thing: Any) -> Any:
        return thing if self.first else self.recorded

    def all_of(self, thing: Any) -> list[Any]:
        return [thing, self.others]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("mine", "others", "amp"), [("bf16", "bf16", "bf16"), ("bf16", "off", "off"), ("off", "bf16", "off")]
)
def test_ranks_take_what_all_of_them_are_fast_in(
    rank: int, mine: Amp, others: Amp, amp: Amp, machine: Machine, tmp_path: Path
) -> None:
    machine(mine)
    ranks, heard = OneOfTwo(count=2, rank=rank), Heard()
    ranks.others = others
    found = _settled(job(tmp_path, "auto"), ranks, heard)
    assert found.recipe.train.amp == amp and found.recipe.ranks == 2
    assert len(heard.said) == (rank == 0), "one of them says it"


def test_a_record_that_the_first_has_read_holds_for_the_other(machine: Machine, tmp_path: Path) -> None:
    machine("off")
    other = OneOfTwo(count=2, rank=1)
    other.recorded = "bf16"
    assert _settled(job(tmp_path, "auto"), other, Silent()).recipe.train.amp == "bf16"


def test_who_starts_ranks_elsewhere_leaves_it_to_them(machine: Machine, tmp_path: Path) -> None:
    machine("bf16")
    two = job(tmp_path, "auto")
    here = replace(two, recipe=replace(two.recipe, ranks=2))
    there = replace(two, recipe=replace(here.recipe, launcher="ray", address="10.0.0.1:6379"))
    assert _settled(here, Ranks(), Silent()).recipe.train.amp == "bf16"
    assert _settled(there, Ranks(), Silent()) == there
    # What they began with is known here too.
    with pytest.raises(KeyboardInterrupt):
        train_to_completion(job(tmp_path, "auto"), Heard(stop=5))
    machine("off")
    assert _settled(there, Ranks(), Silent()).recipe.train.amp == "bf16"


def test_loggers_get_what_it_came_to(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("bf16")
    given: list[About] = []

    @contextmanager
    def listening(names: Sequence[str], progress: RunProgress, about: About) -> Iterator[RunProgress]:
        given.append(about)
        yield progress

    monkeypatch.setattr(nas.training, "listening", listening)
    heard = Heard()
    train_bundle("resnet18", replace(recipe("auto"), train=one_step("auto")), tmp_path / "run", heard)
    assert given[0].settings["train"]["amp"] == "bf16"
    assert sum("auto is" in text for text in heard.said) == 1
    again = evaluate_training(tmp_path / "run", ["train.amp=auto"])
    assert 0 <= again["AP"] <= 1


def one_step(amp: Amp | str) -> TrainRecipe:
    return replace(TrainRecipe(steps=1, batch_size=2), amp=amp)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("crnas_bccd", "stages.supernet.train.amp"),
        ("crnas_bccd", "dilations.supernet.train.amp"),
        ("crnas_bccd", "retrain.train.amp"),
        ("spinenet_digits", "search.proxy.train.amp"),
    ],
)
def test_networks_that_are_compared_have_one_precision(name: str, field: str) -> None:
    data = apply_overrides(read_yaml(RECIPES / f"{name}.yaml"), [f"{field}=auto"])
    said = rf"^{name}: {field}: found 'auto'; allowed in a search are off and bf16, "
    with pytest.raises(ConfigError, match=said):
        check_search(data, source=name)


def test_so_do_those_of_a_space_of_ones_own() -> None:
    with pytest.raises(FieldError, match=r"train\.amp: found 'auto'"):
        AnyProxyRecipe(train=one_step("auto"))


@pytest.mark.parametrize(("amp", "word"), [("bf16", "has"), ("off", "is not known to have")])
def test_a_dry_run_says_what_it_is_here(amp: Amp, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers.precision, "fastest", lambda device: amp)
    found = dry_run("resnet18", recipe("auto"), images=8, measure=0)
    assert found.to_dict()["amp"] == amp
    (note,) = [one for one in found.notes if "amp" in one]
    assert note.startswith(f"train.amp: auto is {amp} on this machine, whose cpu {word} bfloat16 arithmetic")
    assert not any("amp" in one for one in dry_run("resnet18", recipe("off"), images=8, measure=0).notes)


@pytest.mark.parametrize("amp", ["off", "auto"])
def test_a_dry_run_for_another_machine_needs_none_of_its_devices(
    amp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    there = replace(recipe(amp), device="cuda")
    found = dry_run("resnet18", there, images=8, measure=0)
    notes = [one for one in found.notes if "amp" in one]
    assert found.to_dict()["amp"] == amp and len(notes) == (amp == "auto")
    assert all(
        "this machine has no cuda, and it is decided where the training begins" in one for one in notes
    )


def test_our_own_recipes_take_what_is_fastest_and_the_papers_what_they_say() -> None:
    ours = ("cascade_rcnn", "faster_rcnn", "fcos", "finetune", "mask_rcnn", "retinanet")
    assert {read_yaml(RECIPES / f"train_{name}.yaml")["train"]["amp"] for name in ours} == {"auto"}
    others = set(RECIPES.glob("*.yaml")) - {RECIPES / f"train_{name}.yaml" for name in ours}
    assert others and not any("auto" in str(read_yaml(path).get("train", {}).get("amp")) for path in others)
