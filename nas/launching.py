"""The ranks of one training, started by this process: by torchrun's agent, or as workers of Ray Train.

Both carry out the same function on the same piece of work, in processes that ``trainers.ranks.joined`` joins. What they
have to say comes back through a temporary folder; the training's own directory is the only truth, and what torchrun and
Ray write is thrown away. Ranks of this machine meet through a file and talk on the loopback interface only.

Run as a module by :func:`on_ranks`: ``python -m nas.launching agent FOLDER COUNT`` and, for each rank, ``rank FOLDER``.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import search_spaces.errors
from nas.engines.processes import watch
from nas.progress import RunProgress, Silent
from search_spaces.errors import LostRank, RunError, VertebraError
from search_spaces.files import write_atomic
from trainers.ranks import STORE

Piece = TypeVar("Piece")
Launcher = Literal["torchrun", "ray"]
Work = Callable[[Piece, RunProgress], object]

PATIENCE = 0.2
"""Seconds between two looks at what the first rank says."""
FAREWELL = 40.0
"""Seconds that torchrun's agent may take to end its ranks; it gives them 30."""

_WORK, _SAID, _FAILED, _LOG = "work.pickle", "said.jsonl", "failed.json", "output.log"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How ranks are started.

    Args:
        count: of ranks.
        launcher: who starts and watches them.
        threads: of each.
        gpu: each has one of its own.
        address: of a running Ray cluster; None starts them on this machine.
    """

    count: int
    launcher: Launcher
    threads: int
    gpu: bool
    address: str | None = None


def on_ranks(work: Work[Piece], piece: Piece, launch: Launch, progress: RunProgress) -> None:
    """Carry out a piece of work in as many processes as there are ranks, and wait for its end.

    Args:
        work: a function at the top of a module; gets the piece and, on the first rank, a progress that reaches
            ``progress``. It and the piece are pickled between our own processes.
        piece: of work, the same for all ranks.
        launch: how.
        progress: listens.

    Raises:
        LostRank: a rank died; the others are ended.
        VertebraError: what a rank raised.
    """
    with tempfile.TemporaryDirectory(prefix="vertebra-ranks-") as name:
        folder = Path(name)
        if launch.launcher == "ray":
            from nas.engines.ray_train import by_ray_train

            with _followed(folder / _SAID, progress):
                found = by_ray_train(pickle.dumps((work, piece)), folder, launch)
        else:
            (folder / _WORK).write_bytes(pickle.dumps((work, piece)))
            with _followed(folder / _SAID, progress):
                found = _by_torchrun(folder, launch)
        if found is not None:
            _raise(found, launch)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why ranks did not come to the end of their work.

    Args:
        errors: of each rank that raised: name of the class and its text, or a traceback.
        first: the rank that ended first, None where nobody knows.
        died: how it ended, where it did not by itself.
        output: what the processes printed last.
    """

    errors: Mapping[int, tuple[str, str]]
    first: int | None = None
    died: str = ""
    output: str = ""


def carry_out(work: bytes, rank: int, folder: Path) -> tuple[str, str] | None:
    """In a rank: do the work.

    Args:
        work: pickled function and piece.
        rank: of this process.
        folder: where the first rank says how far it is, if it is there.

    Returns:
        Name of the class and text of what was raised, or None.
    """
    try:
        # Written by the process that started this one.
        function, piece = pickle.loads(work)  # noqa: S301
        function(piece, Said(folder / _SAID) if rank == 0 and folder.is_dir() else Silent())
    except VertebraError as error:
        return type(error).__name__, str(error)
    except Exception:
        return "", traceback.format_exc()
    return None


class Said(Silent):
    """A progress that writes down what it hears, a line each, for the process that started the ranks.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def phase(self, title: str, total: int | None, done: int = 0) -> None:
        """See :class:`nas.progress.RunProgress`."""
        self._write("phase", title, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """See :class:`nas.progress.RunProgress`."""
        self._write("advance", done, note)

    def say(self, text: str) -> None:
        """See :class:`nas.progress.RunProgress`."""
        self._write("say", text)

    def _write(self, *words: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(words) + "\n")


@contextmanager
def _followed(path: Path, progress: RunProgress) -> Iterator[None]:
    """Pass on what :class:`Said` writes, to its last line."""
    over = threading.Event()
    path.touch()

    def follow() -> None:
        with path.open(encoding="utf-8") as file:
            last, rest = False, ""
            while True:
                lines = (rest + file.read()).split("\n")
                rest = lines.pop()
                for line in lines:
                    kind, *words = json.loads(line)
                    getattr(progress, kind)(*words)
                if last:
                    return
                last = over.wait(PATIENCE)

    follower = threading.Thread(target=follow, name="ranks", daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _by_torchrun(folder: Path, launch: Launch) -> Failure | None:
    with (folder / _LOG).open("wb") as log:
        # In a session of its own: Ctrl-C reaches this process, which ends the others.
        agent = subprocess.Popen(
            [sys.executable, "-m", "nas.launching", "agent", str(folder), str(launch.count)],
            env=_environment(folder, launch.threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            agent.wait()
        finally:
            _end(agent)
    if agent.returncode == 0:
        return None
    errors = {}
    for rank in range(launch.count):
        path = folder / f"rank-{rank}.json"
        if path.exists():
            kind, text = json.loads(path.read_text(encoding="utf-8"))
            errors[rank] = (kind, text)
    first, died = None, f"torchrun's agent ended with exit code {agent.returncode}"
    if (folder / _FAILED).exists():
        first, code = json.loads((folder / _FAILED).read_text(encoding="utf-8"))
        died = _signal(code) if code < 0 else f"exit code {code}"
    output = (folder / _LOG).read_text(encoding="utf-8", errors="replace")[-4000:]
    return Failure(errors=errors, first=first, died=died, output=output)


def _environment(folder: Path, threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": str(threads),
        **meeting(folder / "store"),
    }


def meeting(store: Path) -> dict[str, str]:
    """Variables with which ranks of one machine meet through a file and talk where only this machine hears them."""
    interface = "lo" if sys.platform.startswith("linux") else "lo0"
    return {STORE: str(store), "GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}


def _end(agent: "subprocess.Popen[bytes]") -> None:
    if agent.poll() is not None:
        return
    agent.terminate()
    try:
        agent.wait(FAREWELL)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()


def _signal(code: int) -> str:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    return f"{name}, usually the system short of memory" if name == "SIGKILL" else name


def _raise(found: Failure, launch: Launch) -> None:
    """One error for all that went wrong: what a rank found out comes first, then that it died, then the rest."""
    by_rank = sorted(found.errors.items(), key=lambda one: (one[0] != found.first, one[0]))
    for _, (kind, text) in by_rank:
        if kind not in ("", LostRank.__name__):
            raise getattr(search_spaces.errors, kind, RunError)(text)
    for rank, (kind, text) in by_rank:
        if kind == "" and (found.first is None or found.first in found.errors):
            raise RuntimeError(f"rank {rank} of {launch.count} failed\n{text}")
    who = "a rank" if found.first is None else f"rank {found.first} of {launch.count}"
    last = f"\n{found.output}" if found.output and found.first is None else ""
    raise LostRank(
        f"{who} died ({found.died}), and the others were stopped; what was reached by the last checkpoint is kept{last}"
    )


def _agent(folder: Path, count: int) -> int:
    """Start ranks on this machine and watch over them, as torchrun does."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="vertebra",
        rdzv_backend="c10d",
        # A file, for a store over TCP listens on all interfaces.
        rdzv_endpoint=str(folder / "rendezvous"),
        rdzv_configs={"store_type": "file"},
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "nas.launching", "rank", str(folder))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        write_atomic(folder / _FAILED, json.dumps([int(rank), int(failure.exitcode)]).encode())
        return 1
    return 0


def _rank(folder: Path) -> int:
    rank = int(os.environ["RANK"])
    raised = carry_out((folder / _WORK).read_bytes(), rank, folder)
    if raised is None:
        return 0
    write_atomic(folder / f"rank-{rank}.json", json.dumps(raised).encode())
    return 2


def _main(role: str, folder: Path, *rest: str) -> int:
    # Whoever is left alone ends: a resumed training would otherwise share its files with it.
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    return _agent(folder, int(rest[0])) if role == "agent" else _rank(folder)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
