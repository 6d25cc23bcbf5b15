"""A process that trains keeps its memory, counted in page faults in processes of their own, and cycles for a time."""

import gc
import os
import platform
import subprocess
import sys
import weakref

import pytest

from trainers.process import uncollected

CODE = """
import resource, sys, torch
from trainers.process import keep_freed_memory, prepare_process
if "keep" in sys.argv:
    prepare_process(1)
    assert torch.get_num_threads() == 1
def step():
    kept = [torch.ones(2**24) for _ in range(2)]  # 64 MiB each, 16384 pages
    return kept[0]
for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, keep_freed_memory())
"""


def faults(*arguments: str, **variables: str) -> tuple[int, bool]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    # Huge pages would hide what is counted.
    environment.pop("GLIBC_TUNABLES", None)
    found = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    count, kept = found.stdout.split()
    return int(count), kept == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep memory")
def test_a_process_that_trains_takes_its_memory_from_the_system_once() -> None:
    kept, possible = faults("keep")
    # The heap settles after some steps, not always the same number of them.
    assert possible and kept < 16384, "fewer than one tensor of the forty was taken anew"
    given_back, _ = faults("leave")
    assert given_back > 20 * 16384, "else there is nothing to keep, and this module can go"


def test_a_persons_own_setting_of_malloc_wins() -> None:
    assert faults("leave", MALLOC_TOP_PAD_="4096")[1] is False


def test_cycles_wait_until_the_end_and_the_collector_is_left_as_it_was() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    gone: list[int] = []

    def many() -> None:
        for _ in range(10 * gc.get_threshold()[0]):
            weakref.finalize(Cycle(), gone.append, 1)

    assert gc.isenabled()
    with pytest.raises(MemoryError), uncollected():
        many()
        assert not gone and not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled(), "an inner one does not end the outer"
        raise MemoryError
    assert gc.isenabled()
    gc.collect()
    assert len(gone) == 10 * gc.get_threshold()[0]
