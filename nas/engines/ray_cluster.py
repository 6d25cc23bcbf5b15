"""The way to a Ray cluster: one of this process's own, where only this machine reaches it, or a running one."""

import ipaddress
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from search_spaces.errors import RunError

PATIENCE = 10.0
"""Seconds in which the head node of a cluster has to answer."""
SECOND_LOOK = 2.0
"""Seconds until a process of Ray that did not answer is asked again."""


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """Workers and what Ray counts for each of them.

    Args:
        count: at a time.
        cpus: of each; no worker gets more threads than that.
        gpus: of each; a fraction lets workers share one.
    """

    count: int
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def each(self) -> dict[str, float]:
        """What one takes, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


@contextmanager
def connected(workers: RayWorkers, *, address: str | None, environment: Mapping[str, str]) -> Iterator[None]:
    """Join a cluster, or start one and shut it down at the end; one that this process has joined before is kept.

    Args:
        workers: those of a cluster of our own fit in it, whatever the machine has.
        address: of the head node (``host:port``), ``auto`` for the cluster that runs on this machine; None starts one
            here, which listens on the loopback interface only.
        environment: variables of the workers, set before Python starts.

    Raises:
        RunError: there is none at that address, or Ray would listen beyond this machine.
    """
    with _quiet():
        if ray.is_initialized():
            yield
            return
        if address is None:
            # As in a process started by this one; on a cluster the nodes have what is installed there.
            environment = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        require_listener(address)
        try:
            with _on_loopback(address is None):
                ray.init(
                    address=address or "local",
                    num_cpus=None if address else max(1, math.ceil(workers.cpus * workers.count)),
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    configure_logging=False,
                    runtime_env={"env_vars": dict(environment)},
                )
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise _no_cluster(address, error) from error
        try:
            if address is None:
                _require_loopback()
            yield
        finally:
            # Where Ray is dead its farewell may fail too, and would hide why the search ends.
            with suppress(Exception):
                ray.shutdown()


def require_room(workers: RayWorkers) -> int:
    """How many workers have room in the cluster as it is, at most those wanted.

    Raises:
        RunError: none has.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(node.get(name, 0.0) // amount) for name, amount in workers.each.items()) for node in nodes
    )
    if room == 0:
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise RunError(
            f"no node of the Ray cluster has {workers} for a worker; its nodes have {have}. Lower ray.cpus or "
            "ray.gpus, or name a larger one as ray.address"
        )
    return min(room, workers.count)


def vital() -> dict[str, tuple[str, int]]:
    """Ray's processes that this driver cannot do without, and where they listen."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {
        "gcs_server": (host, int(port)),
        "raylet": (here["NodeManagerAddress"], here["NodeManagerPort"]),
    }


def require_alive(processes: Mapping[str, tuple[str, int]]) -> None:
    """Fail while there is time to say why: Ray ends its driver without a word some seconds after their death.

    Args:
        processes: see :func:`vital`.

    Raises:
        RunError: one of them does not answer, and not a moment later either.
    """
    for name, place in processes.items():
        for wait in (SECOND_LOOK, 0.0):
            try:
                socket.create_connection(place, timeout=PATIENCE).close()
                break
            except OSError as error:
                found = error
            time.sleep(wait)
        else:
            raise RunError(
                f"Ray's {name} at {place[0]}:{place[1]} has died or is out of reach ({found}). What was finished is "
                "kept; go on with nas resume"
            ) from found


def require_listener(address: str | None) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes.

    Args:
        address: as of :func:`connected`; ``auto`` and None are not looked at.

    Raises:
        RunError: nobody answers there.
    """
    host, colon, port = (address or "").rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> RunError:
    return RunError(
        f"ray.address: found {address!r}: {str(error).strip().splitlines()[0]}. Start a cluster with ray start "
        "--head, or leave ray.address out for one of this process's own. A cluster that asks for a token wants "
        "RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
    )


def _require_loopback() -> None:
    reached = [node["NodeManagerAddress"] for node in ray.nodes()]
    if not all(ipaddress.ip_address(one).is_loopback for one in reached):
        raise RunError(
            f"this version of Ray ({ray.__version__}) listens on {', '.join(reached)}, which other machines reach. "
            "Start a cluster on an address of your choice with ray start, and name it as ray.address"
        )


@contextmanager
def _on_loopback(wanted: bool) -> Iterator[None]:
    """Have Ray start its processes where only this machine reaches them.

    Ray does so on systems where it cannot form a cluster, and decides it when it is imported; a variable of the
    environment would come too late for a program that has imported it already.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not wanted
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of Ray and the files of Tune, which repeat what the study says."""
    variables = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    set_here = {name: value for name, value in variables.items() if name not in os.environ}
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune")}
    os.environ.update(set_here)
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name in set_here:
            with suppress(KeyError):
                del os.environ[name]
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
