"""The errors a person can cause, one root and few children; a bug of ours is an ``assert`` instead."""

import errno
from collections.abc import Mapping


class VertebraError(Exception):
    """Root of every error that a user's input can raise; its text says what to do next."""


class InvalidArchitecture(VertebraError, ValueError):
    """An architecture, gene value or encoding that the space does not contain."""


class ConfigError(VertebraError, ValueError):
    """A recipe or command-line setting that cannot be used; may hold several lines, one a problem."""


class DataError(VertebraError, ValueError):
    """A data set that cannot be used; names the file and the id."""


class RunError(VertebraError):
    """A run directory, checkpoint or bundle that cannot be opened or continued."""


class LostRank(RunError):
    """A process of a training on several devices is gone; started again, the training goes on."""


class CandidateFailed(VertebraError):
    """A listed failure of one candidate (out of memory, non-finite loss): a failed trial, not a stop.

    Args:
        reason: one sentence.
        spent: what it has cost until then, by name, ready for JSON.
    """

    def __init__(self, reason: str, spent: Mapping[str, float] | None = None) -> None:
        super().__init__(reason)
        self.spent = dict(spent or {})


class Diverged(CandidateFailed):
    """A training that left the finite numbers."""


class NonFiniteLoss(Diverged):
    """A loss that is NaN or infinite; raised before the optimiser moves."""


class NonFiniteDetection(Diverged):
    """A box or score that is NaN or infinite; raised before it is scored."""


def out_of_memory(error: BaseException) -> str | None:
    """The sentence for an error of too little memory, whoever raised it; None for any other."""
    # By name, for torch is not imported here; on a CPU it raises no class of its own.
    names = {kind.__name__ for kind in type(error).__mro__}
    known = names & {"MemoryError", "OutOfMemoryError"} or "DefaultCPUAllocator: " in str(error)
    if not known and getattr(error, "errno", None) != errno.ENOMEM:
        return None
    first = next(iter(str(error).strip().splitlines()), "")
    return f"out of memory ({first or type(error).__name__})"
