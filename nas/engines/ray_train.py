"""Ranks as workers of Ray Train, on a cluster of this process's own or a running one.

Ray Train places the workers and notices when one dies. It keeps nothing of ours: its folder is a temporary one, there
are no checkpoints of its own and no restarts, for a training goes on from its directory.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from nas.engines.ray_cluster import RayWorkers, connected, require_room
from nas.launching import Failure, Launch, carry_out, meeting
from search_spaces.errors import RunError


def by_ray_train(work: bytes, folder: Path, launch: Launch) -> Failure | None:
    """Carry out pickled work on all ranks; see :func:`nas.launching.on_ranks`.

    Args:
        work: function and piece.
        folder: a temporary one of this machine.
        launch: how.

    Raises:
        RunError: the cluster has no room for so many ranks.
    """
    workers = RayWorkers(count=launch.count, cpus=launch.threads, gpus=1.0 if launch.gpu else 0.0)
    environment = {"OMP_NUM_THREADS": str(launch.threads)}
    with connected(workers, address=launch.address, environment=environment):
        if (room := require_room(workers)) < launch.count:
            raise RunError(
                f"ranks: found {launch.count}, but the Ray cluster has room for {room} with {workers} each; start fewer"
            )
        trainer = TorchTrainer(
            _work,
            train_loop_config={"work": work, "folder": str(folder)},
            torch_config=TorchConfig() if launch.address else Nearby(store=str(folder / "store")),
            scaling_config=ScalingConfig(
                num_workers=launch.count,
                use_gpu=launch.gpu,
                resources_per_worker=workers.each,
            ),
            run_config=RunConfig(
                name="ranks", storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=0)
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            return _failure(error)
    return None


@dataclass
class Nearby(TorchConfig):  # type: ignore[misc]  # Ray's types are of parts of it only
    """Ranks of one machine, which meet through a file and not through a port that other machines reach.

    Args:
        store: the file.
    """

    store: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train starts in the workers."""
        return _Meeting


class _Meeting(Backend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Nearby) -> None:
        worker_group.execute(_set_variables, backend_config.store)


def _set_variables(store: str) -> None:
    """What torchrun would set, and how this rank meets the others."""
    context = get_context()
    os.environ.update(
        RANK=str(context.get_world_rank()),
        LOCAL_RANK=str(context.get_local_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        **meeting(Path(store)),
    )


class Raised(Exception):
    """What a rank raised, on its way through Ray.

    Args:
        kind: name of the class.
        text: of the error.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


def _work(config: dict[str, Any]) -> None:
    raised = carry_out(config["work"], get_context().get_world_rank(), Path(config["folder"]))
    if raised is not None:
        raise Raised(*raised)


def _failure(error: TrainingFailedError) -> Failure:
    errors, died = {}, {}
    for rank, one in getattr(error, "worker_failures", {}).items():
        cause = one
        while cause is not None and not isinstance(cause, Raised):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            one = getattr(one, "health_check_failure", one)
            died[int(rank)] = f"{type(one).__name__}: {str(one).strip().splitlines()[0]}"
        else:
            errors[int(rank)] = (cause.kind, cause.text)
    first = min(died, default=None)
    return Failure(
        errors=errors,
        first=first,
        died=died[first] if first is not None else "",
        output="" if died or errors else str(error),
    )
