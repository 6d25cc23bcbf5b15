"""The supernets of CR-NAS's two phases: how many, where each is trained, and how each is made from the recipe."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from nas.choosing import MEAN_RANK
from nas.methods.data import SearchData, shared_out
from nas.methods.searching import phase_seed
from nas.methods.spaces import allocation, crnas_recipe, stage_space
from nas.proxies.ensemble import SupernetEnsemble
from nas.proxies.paths import Draw, drawer
from nas.proxies.supernet import SupernetProxy
from nas.recipes.crnas import PhaseRecipe
from nas.run import MEMBER, Run
from search_spaces.architecture import Architecture
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.families import DILATIONS
from search_spaces.crnas.path_memory import LIMIT
from search_spaces.crnas.stages import StageSpace
from search_spaces.crnas.supernet import DilationSupernet, StageSupernet, Supernet
from search_spaces.randomness import seed_for
from search_spaces.space import SearchSpace
from trainers.detectors.catalog import build_detector
from trainers.loop import resolve_device


def supernets(
    run: Run, data: SearchData, space: DilationSpace | None = None, *, trained: bool = False
) -> list[SupernetProxy]:
    """The members of a phase.

    Args:
        run: the search.
        data: its images.
        space: of the dilation lists; None for the supernets over allocations.
        trained: see :func:`dilation_proxy`.
    """
    if space is None:
        return [stage_proxy(run, data, one) for one in range(members_of(run, "stages"))]
    numbers = range(members_of(run, "dilations"))
    return [dilation_proxy(run, space, data, trained=trained, member=one) for one in numbers]


def stage_proxy(run: Run, data: SearchData, member: int = 0) -> SupernetProxy:
    """A supernet over allocations, untrained."""
    recipe = crnas_recipe(run.recipe)
    space = stage_space(recipe.space)
    seed = member_seed(run, "stages", member)
    supernet = StageSupernet(
        settings=space.baseline.settings,
        family=space.baseline.family,
        branches=space.branches,
        sharing=recipe.stages.supernet.sharing,
        seed=seed_for(seed, "weights"),
    )
    draw = drawer(
        recipe.stages.supernet.sampling,
        space.branches,
        lambda counts: allocation(space.baseline, counts),
        lambda rng: any_allocation(space, rng),
        seed,
    )
    return _proxy(run, "stages", space, supernet, draw, data, member)


def dilation_proxy(
    run: Run, space: DilationSpace, data: SearchData, *, trained: bool = False, member: int = 0
) -> SupernetProxy:
    """A supernet over dilation lists.

    It begins with the weights of the trained one over allocations of the same number, where the recipe says so.

    Args:
        run: the search.
        space: of the lists.
        data: its images.
        trained: its weights will be loaded, so none are inherited.
        member: which of the phase's supernets, from 0 on.
    """
    seed = member_seed(run, "dilations", member)
    supernet = DilationSupernet(space.baseline, seed=seed_for(seed, "weights"))
    recipe = crnas_recipe(run.recipe).dilations
    draw = drawer(
        "uniform" if recipe is None else recipe.supernet.sampling,
        [DILATIONS] * len(space.genes),
        lambda values: space.architecture(dict(zip(space.genes, values, strict=True))),
        space.sample,
        seed,
    )
    proxy = _proxy(run, "dilations", space, supernet, draw, data, member)
    if recipe is not None and recipe.supernet.inherit and not trained:
        # It holds out the same images, so nothing is scored on what its weights have learned from.
        donor = stage_proxy(run, data, member)
        donor.prepare()  # trained already: this only reads its checkpoint
        assert isinstance(donor.supernet, StageSupernet)
        supernet.inherit(donor.supernet.slice(space.baseline))
        proxy.detector.load_around_body(donor.detector)
    return proxy


def _proxy(
    run: Run,
    phase: str,
    space: SearchSpace,
    supernet: Supernet,
    draw_path: Draw,
    data: SearchData,
    member: int,
) -> SupernetProxy:
    recipe = crnas_recipe(run.recipe)
    data = shared_out(data, member, run.split_seed)
    searching = phase_recipe(run, phase)
    settings = searching.supernet
    seed = member_seed(run, phase, member)
    detector = build_detector(
        recipe.detector, supernet, data.train_set.num_classes, data.train_set.image_size, seed=seed
    )
    return SupernetProxy(
        space=space,
        draw_path=draw_path,
        supernet=supernet,
        detector=detector,
        train_set=data.train_set,
        held_out=data.held_out,
        recipe=settings,
        race=searching.race,
        # One network has one NASWOT.
        beside=searching.choose_by == MEAN_RANK and member == 0,
        seed=seed,
        directory=directory_of(run, phase, member),
        device=resolve_device(recipe.device),
        remembers=LIMIT // settings.members,
    )


def together(members: Sequence[SupernetProxy]) -> SupernetProxy | SupernetEnsemble:
    """One proxy of all supernets of a phase."""
    return members[0] if len(members) == 1 else SupernetEnsemble(members)


def members_of(run: Run, phase: str) -> int:
    """How many supernets a phase has."""
    return phase_recipe(run, phase).supernet.members


def directory_of(run: Run, phase: str, member: int) -> Path:
    """Where a supernet of a phase is trained; the first in the directory of the phase."""
    directory = run.directory / phase
    return directory if member == 0 else directory / f"{MEMBER}{member + 1}"


def member_seed(run: Run, phase: str, member: int) -> int:
    """Seed of everything in one supernet of a phase; the first one's is the phase's, as if it were alone."""
    seed = phase_seed(run, phase)
    return seed if member == 0 else seed_for(seed, "member", member)


def phase_recipe(run: Run, phase: str) -> PhaseRecipe:
    """Supernet, controller and race of a phase; of the rival's, those of the dilations."""
    recipe = crnas_recipe(run.recipe)
    return recipe.stages if phase == "stages" else recipe.dilations or recipe.stages


def any_allocation(space: StageSpace, rng: Random) -> Architecture:
    """One branch a stage, uniformly; the block budget is for the search, not for training (section 3.2)."""
    return allocation(space.baseline, [rng.choice(counts) for counts in space.branches])
