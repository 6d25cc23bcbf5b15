"""Fixtures and settings that all tests share."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, and no example database in the tree: a failure here is a failure anywhere.
hypothesis.settings.register_profile(
    "vertebra", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=False
)
hypothesis.settings.load_profile("vertebra")

REQUIRED = "VERTEBRA_REQUIRE_SHARED"


RAY = {
    "engines/test_engine_contract.py",
    "engines/test_ray_tune.py",
    "engines/test_stop.py",
    "faults/test_faults.py",
    "faults/test_run_kill.py",
    "test_cluster_files.py",
    "test_crnas_method.py",
    "test_launching.py",
    "test_spinenet_method.py",
}
"""Files that start a Ray cluster: two of them on one machine at the same time want the same sockets."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are dealt out to several processes, those of one file stay together, and so do those of Ray."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix()
        item.add_marker(pytest.mark.xdist_group("ray" if place in RAY else place))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Where the shared data must be there, whoever skips for want of it has failed."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get(REQUIRED) and "shared data" in str(report.longrepr):
        report.outcome = "failed"


@pytest.fixture(scope="session")
def hear_interrupts() -> Callable[[], None]:
    """For ``preexec_fn``: a test run in the background of a shell, and all that it starts, is deaf to Ctrl-C."""
    return partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets: ``data`` in ``$VERTEBRA_SHARED`` or in ``shared`` beside the repository.

    Without it the test is skipped, or fails where ``$VERTEBRA_REQUIRE_SHARED`` says that it must be there.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("VERTEBRA_SHARED", beside)) / "data"
    if not folder.is_dir():
        reason = (
            f"needs shared data; {folder} is no folder (set VERTEBRA_SHARED to the folder that holds data/)"
        )
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def page_of_extensions() -> Callable[[Path], Path]:
    """Writes the files of ``docs/extend.md`` into a new folder."""
    page = (Path(__file__).parents[1] / "docs/extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.DOTALL)

    def write(folder: Path) -> Path:
        folder.mkdir()
        for name, text in blocks:
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write
