"""The contracts, as functions for your own spaces, families, proxies, controllers and detectors.

Call them from a test (``docs/extend.md`` has one of each); they raise ``AssertionError`` with a sentence. What the
toolkit's catalogs list passes the same ones::

    def test_my_controller() -> None:
        check_controller(lambda space, seed: MyController(space, seed=seed, budget=20), max_trials=20)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from nas.controllers.base import DONE, Controller, Done
from nas.trials import History, Record, Score, Stopped
from search_spaces.architecture import Architecture, Candidate, Genes, Prefix, Value
from search_spaces.cost import Cost, cost
from search_spaces.errors import CandidateFailed, InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.genes import Choice, Composition, Gene, Parents, Permutation
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace
from trainers.recipes import DetectorRecipe

if TYPE_CHECKING:
    from torch import nn

ControllerFactory = Callable[[SearchSpace, int], Controller]
"""A space and a seed give a fresh controller."""


class ToySpace(SearchSpace):
    """A small space with every kind of gene and no network: 3 * 12 * 6 * 3 = 648 architectures."""

    name = "toy"

    def __init__(self) -> None:
        self._genes: dict[str, Gene] = {
            "kernel": Choice((1, 3, 5)),
            "blocks": Composition(((1, 2, 3, 4),) * 3, total=7),
            "order": Permutation(3),
            "parents": Parents(3, 2),
        }

    @property
    def genes(self) -> Mapping[str, Gene]:
        """Kernel, blocks, order, parents."""
        return self._genes

    @property
    def baseline(self) -> Architecture:
        """The first of everything, in the middle of the blocks."""
        return self.architecture({"kernel": 3, "blocks": (2, 2, 3), "order": (0, 1, 2), "parents": (0, 1)})

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """See :class:`SearchSpace`."""
        return Architecture(family="toy", settings=Genes({}), genes=Genes(self.check_values(values)))

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """See :class:`SearchSpace`."""
        if architecture.family != "toy":
            raise InvalidArchitecture(f"{self.name}: found family {architecture.family!r}; allowed is 'toy'")
        return self.check_values(dict(architecture.genes))


class SeparableSpace(SearchSpace):
    """``genes`` independent choices of ``options`` values: the shape of the dilation spaces.

    Args:
        genes: how many.
        options: values of each, 1 to this number.
    """

    def __init__(self, genes: int = 4, options: int = 3) -> None:
        self.name = f"separable.{genes}x{options}"
        self._genes: dict[str, Gene] = {
            f"g{index}": Choice(tuple(range(1, options + 1))) for index in range(genes)
        }

    @property
    def genes(self) -> Mapping[str, Gene]:
        """``g0``, ``g1``, ..."""
        return self._genes

    @property
    def baseline(self) -> Architecture:
        """All ones."""
        return self.architecture(dict.fromkeys(self._genes, 1))

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """See :class:`SearchSpace`."""
        return Architecture(
            family="separable",
            settings=Genes({"space": self.name}),
            genes=Genes({"values": tuple(self.check_values(values).values())}),
        )

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """See :class:`SearchSpace`."""
        values = architecture.genes.get("values")
        if architecture.family != "separable" or not isinstance(values, tuple):
            raise InvalidArchitecture(f"{self.name}: {architecture} is not one of its architectures")
        return self.check_values(dict(zip(self._genes, values, strict=False)))


def toy_score(space: SearchSpace, *, seed: int = 0) -> Callable[[Candidate], Score]:
    """A proxy that costs nothing: fixed pseudo-random worths of gene values, added up.

    What a prefix leaves open counts with its mean, so that a prefix's score is the exact expectation over
    its completions.
    """
    worths = {
        name: {repr(value): rng_for(seed, name, repr(value)).random() for value in gene.enumerate()}
        for name, gene in space.genes.items()
    }
    means = {name: sum(worth.values()) / len(worth) for name, worth in worths.items()}

    def score(candidate: Candidate) -> Score:
        decided = space.decided(candidate)
        return Score(
            value=sum(worths[n][repr(decided[n])] if n in decided else means[n] for n in space.genes)
        )

    return score


def extend(history: History, candidate: Candidate, score: Callable[[Candidate], Score] | None) -> History:
    """A history with one more trial, running when there is no score yet."""
    record = Record(number=len(history), phase="check", candidate=candidate, digest=candidate.digest)
    return (*history, record) if score is None else (*history, finished(record, score))


def finished(record: Record, score: Callable[[Candidate], Score]) -> Record:
    """The record once its candidate is scored, or has failed."""
    try:
        return replace(record, state="complete", value=score(record.candidate).value)
    except CandidateFailed as failure:
        return replace(record, state="failed", reason=str(failure))
    except Stopped as stop:
        return replace(record, state="pruned", reason=stop.reason, intermediate={1: 0.0})


def run_in_memory(controller: Controller, score: Callable[[Candidate], Score], *, max_trials: int) -> History:
    """A serial search without a study.

    Raises:
        AssertionError: the controller waits though nothing runs, or does not end.
    """
    history: History = ()
    while not isinstance(asked := controller.ask(history), Done):
        assert asked is not None, f"asked after {len(history)} finished trials, it waits though nothing runs"
        assert len(history) < max_trials, f"it is not done after {max_trials} trials"
        history = extend(history, asked, score)
    return history


def check_controller(
    make: ControllerFactory,
    *,
    space: SearchSpace | None = None,
    max_trials: int = 1000,
    seed: int = 0,
) -> None:
    """A controller proposes from the history alone, ends, and names a complete winner.

    Args:
        make: gives a fresh controller for a space and a seed.
        space: to search; :class:`ToySpace` by default.
        max_trials: by which it must be done.
        seed: of the controller.

    Raises:
        AssertionError: what is wrong.
    """
    space = ToySpace() if space is None else space
    score = toy_score(space)
    history = run_in_memory(make(space, seed), score, max_trials=max_trials)
    assert history, "it is done before it proposed anything"
    for record in history:
        space.encode_candidate(record.candidate)
        assert isinstance(record.candidate, Architecture | Prefix)
    _check_resumes(make, space, history, seed)
    _check_winner(make, space, history, seed)
    _check_running(make, space, history, seed)
    _check_failures(make, space, score, max_trials, seed)


def _check_resumes(make: ControllerFactory, space: SearchSpace, history: History, seed: int) -> None:
    places = sorted(
        {0, 1, 2, len(history) // 3, len(history) // 2, len(history) - 1} & set(range(len(history)))
    )
    # Backwards, so that a controller that remembers is caught by what it should not know yet.
    same = make(space, seed)
    for place in reversed(places):
        wanted = history[place].digest
        for name, controller in (("a fresh", make(space, seed)), ("the same", same)):
            for attempt in ("first", "second"):
                asked = controller.ask(history[:place])
                assert isinstance(asked, Architecture | Prefix) and asked.digest == wanted, (
                    f"after {place} trials the search went on with {history[place].candidate}, but {name} "
                    f"controller, asked a {attempt} time, says {asked}; ask must depend on the history only"
                )


def _check_winner(make: ControllerFactory, space: SearchSpace, history: History, seed: int) -> None:
    winner = make(space, seed).winner(history)
    assert isinstance(winner, Architecture), f"the winner must be a complete architecture; found {winner!r}"
    assert winner in space, f"the winner {winner} is not in the space"
    assert any(record.digest == winner.digest and record.state == "complete" for record in history), (
        f"the winner {winner} was never scored"
    )
    assert make(space, seed).winner(()) is None, "without a trial there is no winner"
    assert make(space, seed).ask(history) is DONE, "done must stay done"


def _check_running(make: ControllerFactory, space: SearchSpace, history: History, seed: int) -> None:
    """Beside a running trial it proposes something valid, waits, or is never 'done'."""
    for place in sorted({0, len(history) // 2, len(history) - 1}):
        running = extend(history[:place], history[place].candidate, None)
        asked = make(space, seed).ask(running)
        again = make(space, seed).ask(running)
        assert not isinstance(asked, Done), f"it is done though trial {place} is still running"
        assert (asked is None) == (again is None)
        if asked is not None and not isinstance(again, Done) and again is not None:
            assert asked.digest == again.digest, "beside a running trial two fresh controllers disagree"
            space.encode_candidate(asked)


def _check_failures(
    make: ControllerFactory,
    space: SearchSpace,
    score: Callable[[Candidate], Score],
    max_trials: int,
    seed: int,
) -> None:
    def sometimes(candidate: Candidate) -> Score:
        if rng_for(seed, "fails", candidate.digest).random() < 0.3:
            raise CandidateFailed("made to fail")
        return score(candidate)

    def always(candidate: Candidate) -> Score:
        raise CandidateFailed(f"made to fail: {candidate}")

    def sometimes_stopped(candidate: Candidate) -> Score:
        if rng_for(seed, "stops", candidate.digest).random() < 0.5:
            raise Stopped("made to stop")
        return score(candidate)

    history = run_in_memory(make(space, seed), sometimes_stopped, max_trials=max_trials)
    _check_resumes(make, space, history, seed)
    winner = make(space, seed).winner(history)
    if winner is not None:
        assert all(r.state == "complete" for r in history if r.digest == winner.digest), (
            f"the winner {winner} was stopped on the way"
        )
    history = run_in_memory(make(space, seed), sometimes, max_trials=max_trials)
    winner = make(space, seed).winner(history)
    if winner is not None:
        assert all(r.state == "complete" for r in history if r.digest == winner.digest), (
            f"the winner {winner} has failed"
        )
    history = run_in_memory(make(space, seed), always, max_trials=max_trials)
    assert make(space, seed).winner(history) is None, "every candidate failed, and yet there is a winner"


def check_proxy(score: Callable[[Candidate], Score], candidates: Sequence[Candidate]) -> None:
    """A proxy gives the same candidate the same score, in any order and beside any others.

    Args:
        score: the proxy.
        candidates: at least two; each is scored twice.

    Raises:
        AssertionError: what is wrong.
    """
    assert len(candidates) >= 2, "give at least two candidates; order cannot be checked with one"
    forwards = [score(candidate).value for candidate in candidates]
    backwards = [score(candidate).value for candidate in reversed(candidates)][::-1]
    for candidate, first, second in zip(candidates, forwards, backwards, strict=True):
        assert first == second, (
            f"{candidate} scored {first} at first and {second} in another order; a score must depend on the "
            "candidate only (seed completions, batches and recalibration by mini-batch)"
        )


def check_space(space: SearchSpace, *, samples: int = 50, seed: int = 0) -> None:
    """Every operator of a space stays inside it, and the encoding is exact both ways.

    Args:
        space: to check.
        samples: random architectures to check with.
        seed: of the samples.

    Raises:
        AssertionError: what is wrong.
    """
    rng = rng_for(seed, "check_space")
    assert space.baseline in space, f"the baseline {space.baseline} is not in {space.name}"
    if space.size <= 10_000:
        digests = {architecture.digest for architecture in space.enumerate()}
        assert space.distinct in (None, len(digests)), (
            f"distinct says {space.distinct}, enumeration gives {len(digests)}"
        )
    previous = space.baseline
    for _ in range(samples):
        architecture = space.sample(rng)
        assert architecture in space, f"sample gave {architecture}, which is not in {space.name}"
        assert Architecture.from_dict(architecture.to_dict()).digest == architecture.digest
        assert space.architecture(space.values(architecture)) == architecture, (
            f"values() and architecture() are not inverse at {architecture}"
        )
        params = space.encode(architecture)
        assert set(params) == set(space.parameters), f"encode gave {sorted(params)}"
        assert space.decode(params) == architecture, (
            f"decode(encode({architecture})) is {space.decode(params)}"
        )
        mutant = space.mutate(architecture, rng)
        assert mutant in space and (mutant != architecture or space.distinct == 1), f"mutate gave {mutant}"
        child = space.crossover(architecture, previous, rng)
        assert child in space, f"crossover gave {child}, which is not in {space.name}"
        for neighbour in islice(space.neighbours(architecture), 20):
            assert neighbour in space and neighbour != architecture, f"neighbours gave {neighbour}"
        if len(space.genes) > 1:
            _check_prefix(space, architecture, seed)
        previous = architecture


def _check_prefix(space: SearchSpace, architecture: Architecture, seed: int) -> None:
    values = space.values(architecture)
    # Where several values describe one architecture, the canonical ones of a completed prefix may be others than
    # the decided ones. Then one gene is left open, and the completed prefix must be among its few outcomes.
    redundant = space.distinct != space.size
    last = list(space.genes)[-1]
    decided = len(values) - 1
    if not redundant:
        decided = rng_for(seed, "prefix", architecture.digest).randrange(1, len(values))
    prefix = space.prefix(list(values.values())[:decided])
    completed = space.complete(prefix, rng_for(seed, "complete", architecture.digest))
    if redundant:
        outcomes = (space.architecture({**prefix.genes, last: v}) for v in space.genes[last].enumerate())
        kept = completed in outcomes
    else:
        kept = list(space.values(completed).items())[:decided] == list(values.items())[:decided]
    assert kept, f"completing {prefix} altered what it decides"
    assert space.candidate_from(space.encode_candidate(prefix)) == prefix, (
        f"{prefix} does not survive encoding"
    )


def check_family(architectures: Sequence[Architecture], *, input_size: tuple[int, int] = (96, 64)) -> None:
    """A family's cost, levels and weights are those of the network that it builds, and it can be exported.

    Args:
        architectures: of the family; each is built.
        input_size: (height, width) px of the image that is sent through.

    Raises:
        AssertionError: what is wrong.
    """
    import torch

    from nas.export.source import backbone_source

    assert architectures, "give at least one architecture"
    for architecture in architectures:
        family = family_of(architecture)
        family.validate(architecture)
        arguments = family.arguments(architecture)
        assert json.loads(json.dumps(arguments)) is not None, f"{arguments} must be plain data for JSON"
        one, same, other = (family.build(architecture, seed=seed) for seed in (3, 3, 4))
        pairs = list(zip(one.state_dict().values(), same.state_dict().values(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs), f"{architecture}: one seed gave two sets of weights"
        others = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert any(not torch.equal(a, b) for a, b in others), (
            f"{architecture}: two seeds gave the same weights"
        )
        counted, shapes = _counted(one, input_size)
        said = cost(architecture, input_size)
        assert said == counted, f"{architecture}: the family says {said}, the network has {counted}"
        levels = family.levels(architecture)
        declared = {name: tuple(level) for name, level in dict(one.levels).items()}  # type: ignore[arg-type]
        assert {name: tuple(level) for name, level in levels.items()} == declared, (
            f"{architecture}: the family says {levels}, the network declares {declared}"
        )
        height, width = input_size
        wanted = {
            name: (level.channels, -(-height // level.stride), -(-width // level.stride))
            for name, level in levels.items()
        }
        assert wanted == shapes, f"{architecture}: of its levels {wanted} were promised, {shapes} came"
        assert set(family.fields(architecture)) == set(levels), "fields() must name the levels"
        space: dict[str, Any] = {"__name__": "backbone"}
        exec(compile(backbone_source(architecture), "backbone.py", "exec"), space)
        space["build"]().load_state_dict(one.state_dict())


def _counted(network: "nn.Module", size: tuple[int, int]) -> tuple[Cost, dict[str, tuple[int, ...]]]:
    """What convolutions and linear layers do for one image, by hooks, and (C, H, W) of every map."""
    import torch
    from torch import nn

    found = Cost(params=sum(weight.numel() for weight in network.parameters()))

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal found
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        found += Cost(macs=output.numel() * layer.weight[0].numel(), activations=output.numel())

    handles = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        maps = network.eval()(torch.zeros(1, 3, *size))
    for handle in handles:
        handle.remove()
    return found, {name: tuple(one.shape[1:]) for name, one in maps.items()}


def check_detector(recipe: DetectorRecipe, *, side: int | None = None, classes: int = 3) -> None:
    """A detector keeps what all detectors keep.

    A seed decides its weights; it learns, with finite losses and gradients, from images without an object, with boxes
    of a pixel and of different sizes, in float32 and in bf16; every weight gets a gradient and moves; its detections
    have the form of all detectors', are the same every time and do not depend on the images beside; and a file of its
    weights brings it back.

    Args:
        recipe: of the detector, by name or target. With ``pyramid: none`` it is built around a small SpineNet, whose
            levels are p3 to p7 at strides 8 to 128, else around a small ResNet with c2 to c5 at strides 4 to 32.
        side: of the square images, px; 128 or 64 when left out.
        classes: number of categories.

    Raises:
        AssertionError: what is wrong.
        ConfigError: a recipe that gives no detector.
    """
    from nas.detector_contract import default_side, keeps_contract

    keeps_contract(recipe, default_side(recipe) if side is None else side, classes)


def check_detector_learns(
    recipe: DetectorRecipe,
    *,
    side: int | None = None,
    classes: int = 2,
    steps: int = 200,
    lr: float = 5e-3,
    least: float = 0.9,
) -> tuple[int, float]:
    """A detector learns one batch of two images by heart: COCO AP, of masks too, rises above ``least``.

    Args:
        recipe: as for :func:`check_detector`.
        side: of the square images, px; 128 or 64 when left out.
        classes: number of categories.
        steps: that it may take.
        lr: peak learning rate, of AdamW.
        least: AP to be passed.

    Returns:
        Steps that it took, and the AP reached.

    Raises:
        AssertionError: it takes longer.
        ConfigError: a recipe that gives no detector.
    """
    from nas.detector_contract import default_side, learns

    side = default_side(recipe) if side is None else side
    return learns(recipe, side, classes, steps=steps, lr=lr, least=least)
