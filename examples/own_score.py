"""Any score can drive a search, and a stopped one goes on: python examples/own_score.py DIR"""

import sys
from pathlib import Path

from nas.controllers.catalog import make_controller
from nas.search import search
from nas.study import Score, Study
from search_spaces.architecture import Architecture, Candidate
from search_spaces.catalog import get_space
from search_spaces.cost import trf


def score(candidate: Candidate) -> Score:
    """How near the deepest receptive field comes to 600 px; put your own measurement here."""
    assert isinstance(candidate, Architecture)
    return Score(value=-abs(trf(candidate)["c5"] - 600.0))


directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own_score")
directory.mkdir(parents=True, exist_ok=True)
space = get_space("crnas.resnet50.stages")
controller = make_controller("aging_evolution", space=space, seed=0, budget=40)
with Study.open(directory) as study:
    phase = study.phase("stages", space, seed=0)
    winner = search(phase=phase, controller=controller, score=score)
    print(f"{len(phase.history())} trials; {winner.genes['blocks']} sees {trf(winner)['c5']} px at C5")
