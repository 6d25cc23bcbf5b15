"""``nas replay``: a run decided again, phase by phase, and its winner named again."""

from nas.methods.catalog import procedure
from nas.methods.data import read_data
from nas.replay import Replay, replay
from nas.run import Run
from nas.study import Study
from search_spaces.errors import RunError
from trainers.data.stored import Say


def replay_run(run: Run, say: Say | None = None) -> list[Replay]:
    """Every phase begun so far; nothing is written, and a search that is under way may go on.

    Args:
        run: finished or not.
        say: see :func:`trainers.data.catalog.open_split`.

    Raises:
        RunError: no trial yet, or a winner that no phase has.
    """
    data, found, winners = read_data(run.recipe, say), [], set()
    with Study.open(run.directory, run.recipe.storage, read_only=True) as study:
        for searched in procedure(run.recipe).searched(run, data, study):
            history, controller = study.records(searched.phase), searched.controller_of(run)
            found.append(replay(searched.phase, history, controller, searched.pruning))
            if (best := controller.winner(history)) is not None:
                winners.add(best.digest)
    if not found:
        raise RunError(f"{run.directory}: no phase has begun, so there is nothing to decide again")
    winner = run.read_winner()
    if winner is not None and winner.digest not in winners:
        raise RunError(
            f"{run.directory / 'winner.yaml'}: holds {winner.digest}, the journal's winners are {sorted(winners)}; "
            "one of the two was changed. Delete winner.yaml and resume, or restore the journal"
        )
    return found
