"""Beginnings that candidates share are computed once, and no digit of a score depends on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from nas.config import check, read_yaml
from nas.ledger import looking
from nas.methods.crnas_supernets import any_allocation
from nas.methods.data import read_data
from nas.methods.spaces import dilation_space, stage_space
from nas.proxies.paths import uniform
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import CRNASRecipe
from search_spaces.architecture import Architecture, Candidate
from search_spaces.cost import cost
from search_spaces.crnas.path_memory import PathMemory
from search_spaces.crnas.supernet import DilationSupernet, StageSupernet
from trainers.detectors.catalog import build_detector

TINY = Path(__file__).parent / "recipes/tiny.yaml"
RECIPE = check(CRNASRecipe, read_yaml(TINY), source=str(TINY))
STAGES = stage_space(RECIPE.space)
DILATIONS = dilation_space(STAGES.baseline)
DATA = read_data(RECIPE)
SEED = 5
Kind = Literal["independent", "prefix", "dilations"]


def proxy_of(kind: Kind, directory: Path, limit: int | None = None) -> SupernetProxy:
    """Its weights are those of its seed, of which scores differ as well as of trained ones."""
    supernet: StageSupernet | DilationSupernet
    if kind == "dilations":
        supernet, draw = DilationSupernet(DILATIONS.baseline, seed=SEED), uniform(DILATIONS.sample, SEED)
    else:
        base = STAGES.baseline
        supernet = StageSupernet(
            family=base.family, settings=base.settings, branches=STAGES.branches, sharing=kind, seed=SEED
        )
        draw = uniform(lambda rng: any_allocation(STAGES, rng), SEED)
    made = SupernetProxy(
        space=DILATIONS if kind == "dilations" else STAGES,
        draw_path=draw,
        supernet=supernet,
        detector=build_detector(
            RECIPE.detector, supernet, DATA.train_set.num_classes, DATA.train_set.image_size, seed=SEED
        ),
        train_set=DATA.train_set,
        held_out=DATA.held_out,
        recipe=RECIPE.stages.supernet,
        seed=SEED,
        directory=directory,
        device=torch.device("cpu"),
    )
    if limit is not None:
        made._memory = PathMemory(limit)
    return made


def candidates(kind: Kind) -> list[Candidate]:
    """As a search asks for them: all allocations, or prefixes of every length and then whole lists."""
    if kind != "dilations":
        return list(STAGES.enumerate())
    values = [[1], [2], [1, 1], [1, 3], [1, 3, 2], [1, 3, 1], [2, 2, 2], [1, 3, 1, 1, 1, 1, 1]]
    whole = [[1, 3, 1, 1, 1, 1, 1, 2], [1, 3, 1, 1, 1, 1, 1, 1], [2, 2, 2, 1, 1, 1, 3, 3]]
    return [DILATIONS.candidate(one) for one in (*values, *whole)]


@contextmanager
def outputs(proxy: SupernetProxy) -> Iterator[list[tuple[int, Tensor]]]:
    """What the network gives in every pass, and how many blocks and layers were computed for it."""
    seen: list[tuple[int, Tensor]] = []
    computed = [0]

    def count(*_: object) -> None:
        computed[0] += 1

    def note(_: nn.Module, __: object, maps: dict[str, Tensor]) -> None:
        seen.append((computed[0], torch.cat([one.flatten() for one in maps.values()])))
        computed[0] = 0

    body = proxy.supernet
    hooks = [one.register_forward_hook(count) for one in body.modules() if isinstance(one, nn.Conv2d)]
    hooks.append(body.register_forward_hook(note))
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", ["independent", "prefix", "dilations"])
@pytest.mark.parametrize("limit", [None, 400_000])
def test_every_pass_gives_the_same_to_the_bit(kind: Kind, limit: int | None, tmp_path: Path) -> None:
    shared, alone = proxy_of(kind, tmp_path, limit), proxy_of(kind, tmp_path, 0)
    with outputs(shared) as found, outputs(alone) as expected:
        for one in candidates(kind):
            assert shared(one).value == alone(one).value
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True))
    work = [sum(count for count, _ in passes) for passes in (found, expected)]
    assert work[0] < (0.8 if limit is None else 1.0) * work[1], "less was computed for it"
    assert limit is None or shared._memory.bytes <= limit


@pytest.mark.parametrize("kind", ["independent", "prefix", "dilations"])
def test_any_order_gives_the_same(kind: Kind, tmp_path: Path) -> None:
    """Deep branches before shallow ones too: a block that ends a stage here stands inside it there."""
    shared, alone = proxy_of(kind, tmp_path), proxy_of(kind, tmp_path, 0)
    with outputs(shared) as found, outputs(alone) as expected:
        for one in reversed(candidates(kind)):
            assert shared(one).value == alone(one).value
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True))


def test_images_are_neither_gathered_nor_normalised_where_the_stem_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainers.learner as learner

    seen, normalised = [], learner._normalised
    monkeypatch.setattr(learner, "_normalised", lambda *given: (seen.append(1), normalised(*given))[1])
    proxy = proxy_of("dilations", tmp_path)
    first, second = candidates("dilations")[:2]
    proxy(first)
    batches = len(proxy._batches) + proxy.recipe.recalibration_batches
    assert len(seen) == batches > len(proxy._batches)
    proxy(second)
    assert len(seen) == batches, "the stem stands before the first dilation"


def test_in_bfloat16_every_pass_gives_the_same_too(tmp_path: Path) -> None:
    """Weights are converted once for all batches there; the statistics and the blocks of a path change between them."""
    shared, alone = proxy_of("dilations", tmp_path), proxy_of("dilations", tmp_path, 0)
    for one in (shared, alone):
        one.recipe = replace(one.recipe, train=replace(one.recipe.train, amp="bf16"))
    with outputs(shared) as found, outputs(alone) as expected:
        for one in candidates("dilations"):
            score = shared(one).value
            torch.set_autocast_cache_enabled(False)
            try:
                assert alone(one).value == score
            finally:
                torch.set_autocast_cache_enabled(True)
    assert found[0][1].dtype == torch.bfloat16
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found, expected, strict=True))


def test_a_candidate_that_fails_half_way_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second batch of scoring fails, so its beginning has statistics but no maps for that batch."""
    import nas.proxies.supernet as module

    proxy, expected = proxy_of("prefix", tmp_path), proxy_of("prefix", tmp_path, 0)
    chosen, calls, detect = candidates("prefix"), [0], module.boxes_evaluating

    def failing(*given: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == 2:
            raise MemoryError
        return detect(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "boxes_evaluating", failing)
    with pytest.raises(MemoryError):
        proxy(chosen[0])
    assert proxy._memory.bytes == 0 and proxy.supernet.memory is None
    assert [proxy(one).value for one in chosen[:3]] == [expected(one).value for one in chosen[:3]]


def test_other_weights_are_not_mixed_with_what_is_remembered(tmp_path: Path) -> None:
    proxy = proxy_of("prefix", tmp_path / "one")
    proxy(STAGES.baseline)
    assert proxy._memory.bytes > 0
    proxy.prepare()
    assert proxy._memory.bytes == 0


def test_a_trial_books_the_multiply_adds_that_were_computed(tmp_path: Path) -> None:
    proxy, size = proxy_of("prefix", tmp_path), DATA.train_set.image_size
    images = 2 * RECIPE.stages.supernet.train.batch_size + len(DATA.held_out)
    booked = []
    for one in (STAGES.baseline, STAGES.baseline):
        with looking() as seen:
            proxy(one)
        booked.append(seen.read()["macs_spent"])
    assert booked[0] == images * cost(STAGES.baseline, size).macs
    assert booked[1] == 0, "all of its parts were behind it"


def test_macs_behind_the_first_parts_add_up(tmp_path: Path) -> None:
    net = proxy_of("prefix", tmp_path).supernet
    base, size = STAGES.baseline, DATA.train_set.image_size
    parts = [part.name for part in net.parts(base)]
    left = [net.macs(base, size, behind=count) for count in range(len(parts) + 1)]
    assert left[0] == cost(base, size).macs and left[-1] == 0
    assert left == sorted(left, reverse=True)
    # What is kept of one path is that of no other.
    for one in [*STAGES.enumerate()][:4]:
        assert net.macs(one, size) == cost(one, size).macs
    net = proxy_of("dilations", tmp_path).supernet
    first = [net.macs(DILATIONS.baseline, size, behind=count) for count in range(len(parts) + 1)]
    dilated = next(one for one in candidates("dilations") if isinstance(one, Architecture) and one != base)
    assert cost(dilated, size).macs == first[0] == net.macs(dilated, size)
    assert [net.macs(dilated, size, behind=count) for count in range(len(parts) + 1)] == first


def test_memory_forgets_the_oldest_and_holds_what_is_in_use() -> None:
    memory, first, second = PathMemory(limit=80), torch.zeros(10), torch.zeros(10)
    keys: Sequence[str] = ("a", "ab")
    with memory.scoring(keys):
        memory.batch = 0
        assert memory.resume() is None
        memory.keep(1, first, {})
        memory.keep(2, second, {"c2": second})
        memory.keep(3, torch.zeros(10), {})  # not decided
    assert memory.bytes == 80
    with memory.scoring(("a", "ac")):
        memory.batch = 0
        held = memory.resume()
        assert held is not None and held[0] == 1 and held[2] == {}
        memory.keep(2, torch.zeros(10), {})
    assert memory.bytes == 80, "ab is forgotten, a was used later"
    with memory.scoring(keys):
        assert memory.known == 1


def test_a_path_of_large_maps_stays_within_the_limit_while_it_is_scored() -> None:
    """After every batch, not only at the end: images of a real data set would not fit otherwise."""
    memory = PathMemory(limit=300)
    with memory.scoring(("a", "ab", "abc")):
        for batch in range(6):
            memory.batch = batch
            first, second, third = torch.zeros(20), torch.zeros(10), torch.zeros(5)
            memory.keep(1, first, {})
            memory.keep(2, second, {})
            memory.keep(3, third, {})
            assert (
                sum(one.numel() * 4 for states in memory._new.values() for one, _ in states.values()) <= 300
            )
        assert set(memory._new) == {3}
    assert memory.bytes == 6 * 20
    with memory.scoring(("a", "ab", "abd")):
        assert memory.known == 0, "what was left out is nobody's beginning"
    with memory.scoring(("a", "ab", "abc")):
        assert memory.known == 3


def test_levels_count_as_maps_too() -> None:
    memory = PathMemory(limit=100)
    with memory.scoring(("a", "ab")):
        memory.batch = 0
        level = torch.zeros(20)
        memory.keep(1, level, {"c2": level})
        memory.keep(2, torch.zeros(5), {"c2": level})
    assert memory.bytes == 100
