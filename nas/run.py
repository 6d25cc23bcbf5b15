"""The run directory: the interface between a search, its resumption and whoever reads the result.

``recipe.yaml`` is written first and atomically: a directory without it is new. Everything else is either
the study's journal or a file that appears whole.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas.config import apply_overrides, dump_yaml, read_yaml, to_data
from nas.journal import JOURNAL, Guard, cut_before, require_record
from nas.ledger import Books
from nas.methods.catalog import check_search
from nas.recipes.search import SearchRecipe
from nas.targets import anchor, files_of, gather, portable, require_unchanged
from search_spaces.architecture import Architecture, digest_of
from search_spaces.errors import RunError
from search_spaces.files import write_atomic
from search_spaces.randomness import seed_for
from search_spaces.targets import FOLDER

PACKAGES = (
    "vertebra",
    "torch",
    "torchvision",
    "optuna",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
    "safetensors",
)
FINISHED = "done.json"
"""Written when everything of a run is done."""
MEMBER = "supernet_"
"""Where in a phase's directory the second and further supernets are, before their number."""
ENVIRONMENT = "environment.json"
"""With what the run was begun, and with what else it was resumed."""
EXTENSIBLE = (
    "budget",
    "workers",
    "engine",
    "deadline",
    "ray",
    "threads",
    "loggers",
    "data.cache",
    "retrain.seeds",
    "retrain.rival_seeds",
    "retrain.ranks",
)
"""What ``nas resume --set`` may change, for nothing that is done already depends on it; ``threads`` changes the last
digits of what is still to come, which is said."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """An opened run directory and its checked recipe."""

    directory: Path
    recipe: SearchRecipe
    books: Books = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "books", Books(self.directory))

    @classmethod
    def create(cls, directory: Path, recipe: SearchRecipe) -> "Run":
        """Start a run, or open the directory when it holds the same recipe.

        Raises:
            RunError: the directory holds another recipe, or cannot be made.
        """
        path = directory / "recipe.yaml"
        recipe = _anchored(recipe)
        files = files_of(to_data(recipe))
        if path.exists():
            run = cls.open(directory)
            if run.digest != recipe_digest(recipe):
                raise RunError(
                    f"{directory} holds a run of another recipe ({run.recipe.name}, digest {run.digest}); "
                    f"take a new --run DIR, or continue the old one with: nas resume {directory}"
                )
            gather(files, directory, begun=True)
            return run
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory}: cannot make the run directory: {error}; name another") from error
        gather(files, directory, begun=False)
        if files:
            recipe = check_search(anchor(portable(to_data(recipe)), directory), source=recipe.name)
        run = cls(directory=directory, recipe=recipe)
        run._write_recipe()
        run.record_environment()
        return run

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Open what :meth:`create` began.

        Raises:
            RunError: no such run, or one of the files that it was begun with was changed in it.
            ConfigError: its recipe was edited into something invalid.
        """
        path = directory / "recipe.yaml"
        if not path.exists():
            raise RunError(
                f"{directory} is no run: it holds no recipe.yaml. Start one with: nas search RECIPE --run {directory}"
            )
        require_unchanged(directory)
        data = anchor(read_yaml(path), directory)
        return cls(directory=directory, recipe=check_search(data, source=str(path)))

    def extended(self, overrides: Sequence[str]) -> "Run":
        """The run with more seeds or other workers; what is done already stays as it is, and so does ``recipe.yaml``
        until :meth:`keep`.

        Args:
            overrides: ``key=value`` for the keys of :data:`EXTENSIBLE`.

        Raises:
            RunError: a key that would change what is done already, or fewer seeds than before.
        """
        problems = [
            f"--set {text}: a run can only be extended; allowed are {', '.join(EXTENSIBLE)}. For anything else "
            "start a new run with nas search"
            for text in overrides
            if not _extensible(text.partition("=")[0].strip())
        ]
        if problems:
            raise RunError("\n".join(problems))
        recipe = _anchored(check_search(apply_overrides(to_data(self.recipe), overrides), source="--set"))
        before, after = self.recipe.retrain, recipe.retrain
        if before is not None and after is not None:
            for name in ("seeds", "rival_seeds"):
                if getattr(after, name) < getattr(before, name):
                    raise RunError(
                        f"--set retrain.{name}={getattr(after, name)}: this run has {getattr(before, name)}; "
                        "trainings are added, not taken away"
                    )
        return replace(self, recipe=recipe)

    def keep(self) -> None:
        """Write an extended recipe down, once nothing speaks against it any more."""
        if Run.open(self.directory).digest != self.digest:
            # First, so that a run with more to do never reads as complete.
            (self.directory / FINISHED).unlink(missing_ok=True)
            self._write_recipe()

    def cut_before(self, record: int) -> Path:
        """Leave out a record of the journal and all after it; what they told is found out again.

        Returns:
            The file that keeps what was taken off.

        Raises:
            RunError: the trials are in a database, there is no such record, or a search is under way.
        """
        if self.recipe.storage is not None:
            raise RunError(
                f"--from {record}: the trials of this run are in a database, which has no records to cut"
            )
        guard = Guard(self.directory)
        try:
            require_record(self.directory / JOURNAL, record)
            # Before the cut, so that a run with more to do never reads as complete.
            (self.directory / FINISHED).unlink(missing_ok=True)
            return cut_before(self.directory / JOURNAL, record)
        finally:
            guard.release()

    @property
    def home(self) -> Path:
        """The copies of the own files that this run uses."""
        return self.directory / FOLDER

    def _write_recipe(self) -> None:
        header = f"# Resolved by nas; digest {self.digest}. Continue with: nas resume {self.directory}\n"
        write_atomic(self.directory / "recipe.yaml", (header + dump_yaml(self.data)).encode())

    @property
    def data(self) -> Any:
        """The resolved recipe as it is written."""
        return portable(to_data(self.recipe))

    @property
    def digest(self) -> str:
        """Key of the resolved recipe."""
        return recipe_digest(self.recipe)

    @property
    def split_seed(self) -> int:
        """Seed of the hold-out split, the same for every use of it in this run."""
        return split_seed(self.recipe)

    def other_bits(self) -> str | None:
        """Why a resumed run cannot promise what one without a stop would have found; None where it can."""
        before = (self.read_json(ENVIRONMENT) or {}).get("threads", self.recipe.threads)
        if before == self.recipe.threads:
            return None
        return (
            f"threads: begun with {before}, now {self.recipe.threads}: sums are taken in another order, so what is "
            f"computed from now on differs in its last digits from a run with {before}, and close decisions may too"
        )

    def record_environment(self) -> None:
        """Write down versions, hardware and threads, and again wherever a resumption finds others."""
        now = environment(self.recipe)
        before = self.read_json(ENVIRONMENT)
        if before is None:
            self.write_json(ENVIRONMENT, now)
            return
        known = [{name: before[name] for name in now if name in before}, *before.get("resumed_with", [])]
        if now not in known:
            self.write_json(ENVIRONMENT, {**before, "resumed_with": [*known[1:], now]})

    def write_json(self, name: str, data: Mapping[str, Any]) -> Path:
        """Write one result file, whole or not at all, with versions, hardware, threads and seeds in it."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != ENVIRONMENT:
            data = {**data, "environment": environment(self.recipe)}
        write_atomic(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
        return path

    def spent(self, phase: str) -> dict[str, Any] | None:
        """What the supernets of a phase have spent, all that are trained by now, and their ``warnings``.

        Returns:
            Sums of ``steps``, ``images`` and ``seconds``; None before the first is trained, and where there are none.
        """
        found = {1: self.read_json(f"{phase}/spent.json")}
        for path in self.directory.glob(f"{phase}/{MEMBER}*/spent.json"):
            number = int(path.parent.name.removeprefix(MEMBER))
            found[number] = self.read_json(str(path.relative_to(self.directory)))
        known = {number: one for number, one in sorted(found.items()) if one is not None}
        if not known:
            return None
        totals = {name: sum(one[name] for one in known.values()) for name in ("steps", "images", "seconds")}
        warnings = [
            text if len(known) == 1 else f"supernet {number}: {text}"
            for number, one in known.items()
            for text in one["warnings"]
        ]
        return totals | {"warnings": warnings}

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A result file's data, or None where it was not written yet.

        Raises:
            RunError: the file is damaged.
        """
        path = self.directory / name
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(
                f"{path}: is not the JSON this run wrote ({error}); delete it and resume"
            ) from error
        return dict(data)

    def write_winner(
        self, winner: Architecture, rivals: Mapping[str, Architecture], baseline: Architecture
    ) -> None:
        """Record the search's result for people, for ``nas describe`` and for the final table."""
        named = {"baseline": baseline, **rivals}
        data = {
            "digest": winner.digest,
            "architecture": winner.to_dict(),
            "others": {name: architecture.to_dict() for name, architecture in named.items()},
            "environment": environment(self.recipe),
        }
        write_atomic(self.directory / "winner.yaml", dump_yaml(data).encode())

    def read_winner(self) -> Architecture | None:
        """The search's result, or None while it goes on."""
        path = self.directory / "winner.yaml"
        return (
            Architecture.from_dict(read_yaml(path)["architecture"]).at(self.home) if path.exists() else None
        )

    def read_rivals(self) -> dict[str, Architecture]:
        """The networks beside the winner, by role; empty while the search goes on."""
        path = self.directory / "winner.yaml"
        if not path.exists():
            return {}
        others = read_yaml(path)["others"].items()
        return {name: Architecture.from_dict(data).at(self.home) for name, data in others}


def _extensible(key: str) -> bool:
    return key in EXTENSIBLE or key.partition(".")[0] in EXTENSIBLE


def _anchored(recipe: SearchRecipe) -> SearchRecipe:
    """Relative places made absolute, so that a run can be resumed from any folder."""
    data, storage = recipe.data, recipe.storage
    if data.root is not None:
        data = replace(data, root=str(Path(data.root).expanduser().resolve()))
    if data.cache is not None:
        data = replace(data, cache=str(Path(data.cache).expanduser().resolve()))
    head, sign, file = (storage or "").partition("sqlite:///")
    if sign and not head and file and not file.startswith("/"):
        storage = f"sqlite:///{Path(file).resolve()}"
    recipe = replace(recipe, data=data, storage=storage)
    plain = to_data(recipe)
    absolute = anchor(plain, Path.cwd())
    return recipe if absolute == plain else check_search(absolute, source=recipe.name)


def recipe_digest(recipe: Any) -> str:
    """Key of a recipe, wherever its own files lie."""
    return digest_of(portable(to_data(recipe)))


def split_seed(recipe: SearchRecipe) -> int:
    """Seed of the hold-out split."""
    return seed_for(recipe.seed, "hold-out")


def environment(recipe: SearchRecipe | None = None) -> dict[str, Any]:
    """Versions, hardware, threads and seeds, for every run and result file."""
    record: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": {"machine": platform.machine(), "processor": _processor(), "cores": os.cpu_count()},
        "system": platform.system(),
    }
    if recipe is not None:
        record |= {
            "recipe": recipe_digest(recipe),
            "seed": recipe.seed,
            "threads": recipe.threads,
            "workers": recipe.workers,
            "device": recipe.device,
        }
    return record


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
