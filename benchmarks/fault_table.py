"""Searches that are disturbed on purpose, ours and those of three other systems, and what each of them has cost.

    python benchmarks/fault_table.py [--kills 222] [--peers-python PYTHON]

Ours goes through every kind of fault of ``tests/faults/driver.py``. Bare Optuna (its journal file, a seeded sampler,
as many further trials as have no result), NePS (the same root directory again) and Ray Tune (``Tuner.restore``) get
the same objective, the same pause and the same seeded moments: SIGKILL of the driver, and of the worker where there is
one. Ray and Optuna are those of this environment. NePS wants other versions than ours; its column says "not installed"
unless PYTHON (or ``$VERTEBRA_PEERS_PYTHON``) is that of an environment made by

    python -m venv peers && peers/bin/pip install neural-pipeline-search==0.17.0

Every search is written to ``--log`` when it is over, and read from there by the next call, so that a kill of this
script costs one search. The summary is benchmarks/results/fault_table.json; exit code 1 unless ours has lost, repeated
and left stuck nothing, and every history is that of the undisturbed search. *problems* are all else that is not as it
should be, a traceback in place of a sentence for example.

Columns: *lost*, results that were there before a fault and are gone at the end; *repeated*, evaluations of candidates
that had their result; *proposed twice*, trials at a point that another trial has; *stuck*, trials without an end;
*missing*, results that the budget had paid for and that are not there. "There" is what a system holds on disk when the
killed process is gone. Ray Tune writes that down every ten seconds or so; its evaluations have their result when they
ended a quarter of a second before the kill.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FAULTS = ROOT / "tests/faults"
sys.path.insert(0, str(FAULTS))

# The harness is the tests' own.
from driver import Session, completed, faulted, kill_below, moment, wait_for_busy
from objective import lines_of

from nas.run import environment

RESULT = ROOT / "benchmarks/results/fault_table.json"
PEERS = ROOT / "benchmarks/fault_peers.py"
BUDGET, SECONDS = 20, 0.06
LIMIT = 600.0
"""Seconds after which another system's session is stuck."""

OURS: dict[tuple[str, str], tuple[int, int]] = {
    ("driver", "serial"): (32, 4),
    ("driver", "processes"): (28, 4),
    ("driver", "ray"): (12, 3),
    ("worker", "processes"): (28, 4),
    ("worker", "ray"): (12, 4),
    ("raylet", "nodes"): (6, 1),
    ("own raylet", "ray"): (4, 1),
    ("own raylet", "nodes"): (2, 1),
    ("out of memory", "serial"): (8, 2),
    ("out of memory", "processes"): (8, 2),
    ("out of memory", "ray"): (6, 3),
    ("hang", "processes"): (6, 2),
    ("hang", "ray"): (3, 3),
    ("kills its worker", "processes"): (6, 2),
    ("kills its worker", "ray"): (3, 3),
    ("full disk", "serial"): (12, 2),
    ("full disk", "processes"): (6, 2),
    ("read-only", "serial"): (8, 2),
    ("truncation", "serial"): (20, 2),
    ("flipped bit", "serial"): (12, 2),
}
"""Kind and engine -> faults of the whole table, and those of one search."""
THEIRS: dict[tuple[str, str], tuple[int, int]] = {
    ("driver", "optuna"): (24, 4),
    ("driver", "neps"): (20, 4),
    ("driver", "ray"): (20, 4),
    ("worker", "ray"): (8, 4),
}
"""Kind and system -> the same."""
NAMES = {"optuna": "optuna", "neps": "neural-pipeline-search", "ray": "ray"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """One disturbed search of another system.

    Args:
        system: of :data:`NAMES`.
        kind: of the faults.
        seed: of the moments, and of the system's sampler.
        folder: new.
        python: that has the system.
    """

    system: str
    kind: str
    seed: int
    folder: Path
    python: str

    def carried_out(self, times: int) -> dict[str, Any]:
        """Disturb it so many times, resume it to its end, and count."""
        rng, log = random.Random(f"{self.kind} {self.seed}"), self.folder / "calls.log"
        (self.folder / "run").mkdir(parents=True)
        faults, done, ended = 0, set[str](), True
        repeated = 0
        for _ in range(times if self.kind == "driver" else 1):
            session = self._session(log)
            if self.kind == "driver":
                if not moment(session, rng, BUDGET / times, SECONDS):
                    break
                killed = session.kill()
                faults += 1
            else:
                for _ in range(times):
                    if moment(session, rng, 0.8 * BUDGET / times, SECONDS) and (
                        busy := wait_for_busy(session)
                    ):
                        faults += kill_below(rng.choice(busy)[0])
                ended = session.end()[0] == 0
                killed = math.inf
            repeated += self._again(session, done)
            done |= (
                completed(session.new(), killed) if self.system == "ray" else set(self._told()["complete"])
            )
        # Restored once more where workers were killed, for that is how its failed trials are tried again.
        session = self._session(log)
        code, text = session.end()
        repeated += self._again(session, done)
        found = self._told()
        begun = sum(words[0] == "begin" for words in lines_of(log))
        points = Counter(found["trials"])
        return {
            "system": self.system,
            "kind": self.kind,
            "seed": self.seed,
            "faults": faults,
            "lost": len(done - set(found["complete"])),
            "repeated": repeated,
            "proposed_twice": sum(count - 1 for count in points.values()),
            "stuck": found["stuck"] + (code is None) + (not ended),
            "missing": max(0, BUDGET - len(found["complete"])),
            "evaluations": begun,
            "results": len(found["complete"]),
            "ended_with": "" if code == 0 else f"{code}: {text.strip()[-300:]}",
        }

    def _session(self, log: Path) -> Session:
        return Session(self._command("search"), log, limit=LIMIT)

    def _told(self) -> dict[str, Any]:
        told = subprocess.run(self._command("tell"), capture_output=True, text=True, check=True)
        return dict(json.loads(told.stdout.strip().splitlines()[-1]))

    def _command(self, what: str) -> list[str]:
        plan = {
            "system": self.system,
            "do": what,
            "directory": str(self.folder / "run"),
            "log": str(self.folder / "calls.log"),
            "objective": str(FAULTS),
            "seed": self.seed,
            "budget": BUDGET,
            "seconds": SECONDS,
        }
        return [self.python, str(PEERS), json.dumps(plan)]

    @staticmethod
    def _again(session: Session, done: set[str]) -> int:
        return sum(words[0] == "begin" and words[2] in done for words in session.new())


def ours(share: float, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The searches of ours that are not among the rows yet, the kinds in turn."""

    def of(kind: str, engine: str, wanted: int, times: int) -> Iterator[dict[str, Any]]:
        known = [
            row for row in rows if (row["system"], row["kind"], row.get("engine")) == ("ours", kind, engine)
        ]
        faults, seed = sum(row["faults"] for row in known), len(known)
        while faults < share * wanted:
            with tempfile.TemporaryDirectory() as folder:
                account = faulted(
                    kind, engine, seed, Path(folder) / "search", times=times, budget=BUDGET, seconds=SECONDS
                )
            faults, seed = faults + account.faults, seed + 1
            yield {"system": "ours", **asdict(account), "clean": account.clean}

    yield from in_turn(of(*key, *counts) for key, counts in OURS.items())


def theirs(share: float, rows: list[dict[str, Any]], pythons: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The same of the other systems, as far as they are installed."""

    def of(kind: str, system: str, wanted: int, times: int) -> Iterator[dict[str, Any]]:
        known = [row for row in rows if (row["system"], row["kind"]) == (system, kind)]
        faults, seed = sum(row["faults"] for row in known), len(known)
        while faults < min(1.0, share) * wanted:
            with tempfile.TemporaryDirectory() as folder:
                search = Search(
                    system=system,
                    kind=kind,
                    seed=seed,
                    folder=Path(folder) / "search",
                    python=pythons[system],
                )
                row = search.carried_out(times)
            faults, seed = faults + row["faults"], seed + 1
            yield row

    yield from in_turn(of(*key, *counts) for key, counts in THEIRS.items() if key[1] in pythons)


def in_turn(lanes: Iterator[Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One of each lane, and again, until all are empty."""
    waiting = deque(lanes)
    while waiting:
        lane = waiting.popleft()
        for row in lane:
            yield row
            waiting.append(lane)
            break


def version_in(python: str, package: str) -> str | None:
    """A package's version in an environment, or None."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def summary(rows: Sequence[dict[str, Any]], versions: dict[str, str | None]) -> dict[str, Any]:
    """Sums over a system's searches, by kind of fault."""
    counted = ("faults", "lost", "repeated", "stuck")
    table: dict[str, Any] = {"ours": {}}
    for (kind, engine), _ in OURS.items():
        mine = [
            row for row in rows if (row["system"], row["kind"], row.get("engine")) == ("ours", kind, engine)
        ]
        table["ours"][f"{kind}, {engine}"] = {
            "searches": len(mine),
            **{name: sum(row[name] for row in mine) for name in (*counted, "charged", "again")},
            "equal_histories": sum(row["equal"] for row in mine),
            "problems": sum(len(row["problems"]) for row in mine),
        }
    for (kind, system), _ in THEIRS.items():
        if versions[system] is None:
            table[system] = "not installed"
            continue
        mine = [row for row in rows if (row["system"], row["kind"]) == (system, kind)]
        names = (*counted, "proposed_twice", "missing", "evaluations", "results")
        table.setdefault(system, {})[kind] = {
            "searches": len(mine),
            **{name: sum(row[name] for row in mine) for name in names},
            "did_not_end_well": sum(bool(row["ended_with"]) for row in mine),
        }
    return table


def main() -> int:
    """Carry out what is missing, sum it up, print it."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--kills", type=int, default=sum(count for count, _ in OURS.values()))
    words.add_argument(
        "--peers-python", default=os.environ.get("VERTEBRA_PEERS_PYTHON"), help="that has NePS"
    )
    words.add_argument("--only", choices=("ours", "peers"), help="no new searches of the others")
    words.add_argument("--log", type=Path, default=ROOT / "runs/fault_table.jsonl", help="a line a search")
    words.add_argument("--result", type=Path, default=RESULT)
    given = words.parse_args()
    pythons = {"optuna": sys.executable, "ray": sys.executable}
    if given.peers_python is not None:
        pythons["neps"] = given.peers_python
    versions = {
        name: version_in(pythons.get(name, ""), NAMES[name]) if name in pythons else None for name in NAMES
    }
    installed = {name: python for name, python in pythons.items() if versions[name] is not None}
    given.log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in given.log.read_text().splitlines()] if given.log.exists() else []
    share = given.kills / sum(count for count, _ in OURS.values())
    with given.log.open("a", encoding="utf-8") as log:
        lanes = {"ours": ours(share, list(rows)), "peers": theirs(share, list(rows), installed)}
        for row in in_turn(iter([lane for name, lane in lanes.items() if given.only in (None, name)])):
            rows.append(row)
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(json.dumps(row), flush=True)
    mine = [row for row in rows if row["system"] == "ours"]
    total = {
        name: sum(row[name] for row in mine) for name in ("faults", "lost", "repeated", "stuck", "charged")
    }
    promised = not any(total[name] for name in total if name != "faults") and all(
        row["equal"] for row in mine
    )
    result = {
        "command": f"python benchmarks/fault_table.py --kills {given.kills} --peers-python PYTHON",
        "environment": environment(),
        "versions": versions,
        "budget": BUDGET,
        "seconds_of_an_evaluation": SECONDS,
        "ours": {**total, "searches": len(mine), "as_promised": promised},
        "by_kind": summary(rows, versions),
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if promised else 1


if __name__ == "__main__":
    sys.exit(main())
