"""Controllers on a table of trained networks: NAS-Bench-Macro (Su et al. 2021), 3^8 networks on CIFAR-10."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from nas.controllers.catalog import make_controller
from nas.testing import SeparableSpace, run_in_memory
from nas.trials import Score
from search_spaces.architecture import Candidate

SPACE = SeparableSpace(8, 3)
BUDGET = 100
SEEDS = 12


@pytest.fixture(scope="module")
def accuracies(shared_data: Path) -> dict[tuple[int, ...], float]:
    """Block types, 1 to 3, -> test accuracy in percent, the mean of three trainings."""
    file = shared_data.parent / "tables" / "nas_bench_macro" / "nas-bench-macro_cifar10.json"
    if not file.is_file():
        pytest.skip(f"needs shared data; {file} is no file")
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {tuple(int(kind) + 1 for kind in name): row["mean_acc"] for name, row in rows.items()}


def regret(name: str, accuracies: dict[tuple[int, ...], float], options: dict[str, Any]) -> float:
    """Of the best network found, in points of accuracy, a mean over seeds."""

    def score(candidate: Candidate) -> Score:
        return Score(value=accuracies[candidate.genes["values"]])  # type: ignore[index]

    best = max(accuracies.values())
    regrets = []
    for seed in range(SEEDS):
        controller = make_controller(name, space=SPACE, seed=seed, budget=BUDGET, options=options)
        history = run_in_memory(controller, score, max_trials=BUDGET)
        regrets.append(best - max(record.value for record in history if record.value is not None))
    return mean(regrets)


@pytest.fixture(scope="module")
def of_random(accuracies: dict[tuple[int, ...], float]) -> float:
    return regret("random", accuracies, {})


def test_the_table_is_whole(accuracies: dict[tuple[int, ...], float]) -> None:
    assert len(accuracies) == SPACE.size
    best = max(accuracies, key=lambda kinds: accuracies[kinds])
    assert best == (3, 3, 3, 2, 3, 3, 3, 1)
    assert accuracies[best] == pytest.approx(93.1267, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("local_search", {"start": "random"}),
        ("local_search", {"start": "random", "width": 1}),
        ("policy_gradient", {}),
        ("policy_gradient", {"algorithm": "ppo"}),
    ],
    ids=["best_improvement", "first_improvement", "reinforce", "ppo"],
)
def test_what_learns_beats_random_search(
    name: str, options: dict[str, Any], accuracies: dict[tuple[int, ...], float], of_random: float
) -> None:
    """Measured, 12 seeds: random 0.289, local search 0.046 and 0.026, reinforce 0.074, ppo 0.096 points."""
    assert regret(name, accuracies, options) < 0.6 * of_random
