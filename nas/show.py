"""What the read-only commands say: plain data for tables and ``--json``. Torch-free."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nas.agreement import agreements
from nas.choosing import mean_ranks, naswot_of, said
from nas.journal import JOURNAL
from nas.methods.budgeting import Allowance
from nas.methods.catalog import method_of
from nas.methods.costs import cost_line, ledger
from nas.pareto import front_of
from nas.recipes.any_space import OnePhaseRecipe
from nas.recipes.crnas import CRNASRecipe
from nas.recipes.one_search import OneSearchRecipe
from nas.recipes.search import SearchRecipe
from nas.resolve import read_architecture
from nas.run import FINISHED, Run
from nas.study import History, Record, Study
from search_spaces.architecture import Architecture
from search_spaces.catalog import FAMILIES, SPACES, family_of, get_space
from search_spaces.cost import cost, trf
from search_spaces.errors import ConfigError
from search_spaces.gene import Gene
from search_spaces.genes import Choice, Composition
from search_spaces.targets import bare


def histories(run: Run) -> dict[str, History]:
    """The trials of every phase begun so far, also while a search writes; empty before the first."""
    url = run.recipe.storage
    if url is None and not (run.directory / JOURNAL).exists():
        return {}
    with Study.open(run.directory, url, read_only=True) as study:
        begun = study.phase_names()
        return {name: study.records(name) for name in method_of(run.recipe).phases if name in begun}


def summary(directory: Path) -> dict[str, Any]:
    """``nas show``: state, winner, best score, cost and all trials in order.

    Raises:
        RunError: no such run.
    """
    run = Run.open(directory)
    trials = histories(run)
    winner = run.read_winner()
    state = state_of(run, trials)
    if state == "complete" and not (directory / "report.html").exists():
        state = "reporting"  # stopped before the last file: nas resume writes it
    costs, allowance = ledger(run, trials), Allowance.of(run)
    return {
        "run": str(directory),
        "recipe": run.digest,
        "state": state,
        "winner": None
        if winner is None
        else {"digest": winner.digest, "text": str(winner), **winner.to_dict()},
        "allocation_chosen_by": allocation_chosen_by(run.recipe),
        "agreement": agreements(trials),
        "best": _best(trials, ("random", *run.recipe.ablated)),
        "scored_by": own_proxy(run.recipe) or "AP on the held-out images",
        "cost": spending(run, trials),
        "ledger": costs,
        "cost_line": cost_line(costs) if costs["starts"] else None,
        "budget": None if allowance is None else allowance.last_line(trials),
        "trials": [
            _trial(record, ranks.get(record.number))
            for history in trials.values()
            for ranks in [mean_ranks(history)]
            for record in history
        ],
        "front": [record.number for record in pareto_front(run, trials)],
    }


def pareto_front(run: Run, trials: dict[str, History]) -> list[Record]:
    """The trials of the search that no other dominates, cheapest first; empty with one objective."""
    objective = cost_objective(run)
    return [] if objective is None else front_of(trials.get("search", ()), objective)


def cost_objective(run: Run) -> str | None:
    """The objective beside AP; None in a search for AP alone."""
    search = getattr(run.recipe, "search", None)
    return search.cost if isinstance(search, OneSearchRecipe) else None


def own_proxy(recipe: SearchRecipe) -> str | None:
    """What a person calls their own proxy, whose scores are no AP; None where candidates were scored by AP."""
    target = recipe.search.proxy.target if isinstance(recipe, OnePhaseRecipe) else None
    return None if target is None else bare(target)


def allocation_chosen_by(recipe: SearchRecipe) -> str | None:
    """By what the allocation of CR-NAS is chosen, as a person reads it; None of other methods."""
    if not isinstance(recipe, CRNASRecipe):
        return None
    return said(recipe.stages.choose_by, recipe.stages.supernet.members)


def several_supernets(recipe: SearchRecipe) -> dict[str, int]:
    """Phase of CR-NAS -> its supernets, where it has more than one."""
    if not isinstance(recipe, CRNASRecipe):
        return {}
    found = {"stages": recipe.stages.supernet.members}
    if recipe.dilations is not None:
        found["dilations"] = recipe.dilations.supernet.members
    return {name: count for name, count in found.items() if count > 1}


def state_of(run: Run, trials: dict[str, History]) -> str:
    """``new``, the phase a run is in, ``retraining``, or ``complete``."""
    if run.read_json(FINISHED) is not None:
        return "complete"
    if run.read_winner() is not None:
        return "retraining"
    return list(trials)[-1] if trials else "new"


def spending(run: Run, trials: dict[str, History]) -> dict[str, float]:
    """What a run has spent so far: candidates scored, seconds, training images."""
    found: dict[str, float] = {}
    for name, history in trials.items():
        found[f"{name}_candidates"] = sum(record.state == "complete" for record in history)
        found[f"{name}_scoring_seconds"] = round(sum(record.seconds for record in history), 1)
        spent = run.spent(name)
        if spent is not None:
            found[f"{name}_supernet_seconds"] = spent["seconds"]
            found[f"{name}_supernet_images"] = spent["images"]
    results = [
        run.read_json(str(path.relative_to(run.directory)))
        for path in run.directory.glob("retrain/*/*/result.json")
    ]
    if results:
        found["retraining_runs"] = len(results)
        found["retraining_seconds"] = round(sum(result["seconds"] for result in results if result), 1)
        found["retraining_images"] = sum(result["images"] for result in results if result)
    found["seconds"] = round(sum(value for name, value in found.items() if name.endswith("_seconds")), 1)
    return found


def description(source: str, size: str) -> dict[str, Any]:
    """``nas describe``: parameters, multiply-adds and levels of a backbone.

    Raises:
        ConfigError: a size that is not ``HxW``.
        InvalidArchitecture: an unknown name, or an input smaller than 32 px a side.
    """
    height, width = input_size(size)
    architecture = read_architecture(source)
    found = cost(architecture, (height, width))
    fields = trf(architecture)
    return {
        "text": str(architecture),
        "digest": architecture.digest,
        "architecture": architecture.to_dict(),
        "input": [height, width],
        "params": found.params,
        "macs": found.macs,
        "activations": found.activations,
        "levels": {
            name: {"channels": level.channels, "stride": level.stride, "trf": fields[name]}
            for name, level in family_of(architecture).levels(architecture).items()
        },
    }


def input_size(text: str) -> tuple[int, int]:
    """(height, width) in px of ``HxW``.

    Raises:
        ConfigError: another form.
    """
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if match is None:
        raise ConfigError(f"--input: found {text!r}; write height and width in pixels, for example 800x1088")
    return int(match[1]), int(match[2])


def space_facts(name: str | None) -> list[dict[str, Any]]:
    """``nas spaces``: one space, or all.

    Raises:
        InvalidArchitecture: no such space.
    """
    spaces = [get_space(one) for one in ([name] if name else SPACES)]
    return [
        {
            "name": space.name,
            "size": space.size,
            "distinct": space.distinct,
            "genes": {gene: _gene(kind) for gene, kind in space.genes.items()},
            "baseline": str(space.baseline),
        }
        for space in spaces
    ]


def _gene(gene: Gene) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": type(gene).__name__.lower(), "size": gene.size}
    if isinstance(gene, Choice):
        return facts | {"options": list(gene.options)}
    if isinstance(gene, Composition):
        return facts | {"parts": [list(part) for part in gene.parts], "window": list(gene.window or ())}
    return facts


def short_text(candidate: Any) -> str:
    """What a person reads of a candidate: its family's text (:meth:`Family.text`), whole for any other."""
    # A made-up space has architectures of a family that nobody builds.
    known = isinstance(candidate, Architecture) and (candidate.family in FAMILIES or ":" in candidate.family)
    return family_of(candidate).text(candidate) if known else str(candidate)


def _best(trials: dict[str, History], apart: Collection[str]) -> float | None:
    """Best score of a whole network in the last phase that has one; no two supernets' scores compare.

    Args:
        trials: of every phase.
        apart: phases whose networks the winner is compared with.
    """
    for name in reversed([name for name in trials if name not in apart]):
        whole = (record for record in trials.get(name, ()) if isinstance(record.candidate, Architecture))
        values = [record.value for record in whole if record.value is not None]
        if values:
            return max(values)
    return None


def _trial(record: Record, rank: float | None) -> dict[str, Any]:
    return {
        "number": record.number,
        "phase": record.phase,
        "digest": record.digest,
        "value": record.value,
        "naswot": naswot_of(record),
        "mean_rank": rank,
        "state": record.state,
        "text": short_text(record.candidate),
        "reason": record.reason,
        "params": record.attributes.get("params"),
        "macs": record.attributes.get("macs"),
        "latency": record.attributes.get("latency"),
        "seconds": record.seconds,
        "images_seen": record.images_seen,
        "macs_spent": record.macs_spent,
        "lost": record.lost,
        "lost_seconds": record.lost_seconds,
        "intermediate": {str(step): value for step, value in record.intermediate.items()},
    }
