"""Tests that share files or a cluster stay in one process."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_are_dealt_out_in_groups(request: pytest.FixtureRequest) -> None:
    """Some versions of pytest and pytest-xdist together ignore the groups in silence."""
    assert request.node.nodeid.endswith("@test_grouping.py")
