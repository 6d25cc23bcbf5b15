"""A Ray cluster for the tests of one file."""

from collections.abc import Iterator

import pytest

from nas.engines.ray_cluster import RayWorkers, connected


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """An engine joins what its process has joined before, so that only the first test of a file waits for a start."""
    with connected(RayWorkers(count=4), address=None, environment={"OMP_NUM_THREADS": "1"}):
        yield
