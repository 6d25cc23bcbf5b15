"""Which module may import which: arrows between packages, no cycles, and no torch in search logic."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "trainers", "nas")
"""Each imports only itself and what stands before it."""

TORCH_FREE = (
    "search_spaces.architecture",
    "search_spaces.catalog",
    "search_spaces.cost",
    "search_spaces.crnas.dilations",
    "search_spaces.crnas.remapping",
    "search_spaces.crnas.stages",
    "search_spaces.crnas.zoo",
    "search_spaces.errors",
    "search_spaces.genes",
    "search_spaces.space",
    "search_spaces.spinenet.space",
    "search_spaces.targets",
    "nas.cli",
    "nas.config",
    "nas.controllers.adapter",
    "nas.controllers.catalog",
    "nas.search",
    "nas.study",
    "nas.targets",
    "nas.testing",
)
OPTUNA_HOMES = ("nas.pruning", "nas.study", "nas.journal", "nas.distributions", "nas.controllers")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, *, at_import_time: bool) -> set[str]:
    """Full names that a file imports; lazy imports inside functions only when asked for."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if at_import_time and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(node)
        ):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}; write the full name"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
        todo.extend(ast.iter_child_nodes(node))
    return names


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_import_in_one_direction(module: str) -> None:
    package = module.split(".")[0]
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = [
        name
        for name in ours(imports(MODULES[module], at_import_time=False))
        if name.split(".")[0] not in allowed
    ]
    assert not wrong, f"{module} imports {wrong}; {package} may import {allowed}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_imported_exists_and_tests_stay_out(module: str) -> None:
    names = imports(MODULES[module], at_import_time=False)
    missing = sorted(name for name in ours(names) if name not in MODULES)
    assert not missing, f"{module} imports {missing}, which is not there"
    assert not {name for name in names if name.split(".")[0] in ("tests", "examples", "benchmarks")}


def test_modules_have_no_cycles() -> None:
    graph = {name: ours(imports(path, at_import_time=True)) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for imported in sorted(graph.get(name, set())):
            visit(imported, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_optuna_stays_behind_the_study_and_the_controllers(module: str) -> None:
    if not module.startswith(OPTUNA_HOMES):
        roots = {name.split(".")[0] for name in imports(MODULES[module], at_import_time=False)}
        assert "optuna" not in roots, f"{module} imports optuna; go through nas.study or nas.controllers"


def in_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_search_logic_never_imports_torch() -> None:
    present = [name for name in TORCH_FREE if name in MODULES]
    assert set(TORCH_FREE) == set(present), f"not there: {sorted(set(TORCH_FREE) - set(present))}"
    code = (
        "import importlib, sys\n"
        f"for name in {present!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
        "print('free')\n"
    )
    assert in_fresh_process(code).strip() == "free"


def test_networks_and_exported_sources_import_torch_only() -> None:
    for name in (
        "search_spaces.crnas.resnet",
        "search_spaces.crnas.mobilenet",
        "search_spaces.spinenet.network",
        "search_spaces.spinenet.mobile",
    ):
        roots = {full.split(".")[0] for full in imports(MODULES[name], at_import_time=False)}
        assert roots <= {"torch", *sys.stdlib_module_names}, f"{name} imports {sorted(roots)}"


def test_help_answers_at_once() -> None:
    code = (
        "import sys\n"
        "from nas.cli import main\n"
        "sys.argv = ['nas', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stopped:\n"
        "    assert not stopped.code, stopped.code\n"
        "slow = [name for name in ('torch', 'optuna', 'numpy') if name in sys.modules]\n"
        "assert not slow, f'imported by nas --help: {slow}'\n"
    )
    seconds = []
    for _ in range(3):
        # Processor time, because other work on the machine would be counted in the wall's.
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_fresh_process(code)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    assert min(seconds) < 1.0, f"nas --help took {seconds} s of processor time"
