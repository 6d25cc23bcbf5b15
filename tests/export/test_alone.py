"""What runs where there is only torch: a batch at a time, its errors in a sentence, and nothing left of it."""

import os
from pathlib import Path

import pytest
import torch

from nas.export import alone as module
from nas.export.alone import alone
from search_spaces.errors import RunError

DOUBLED = """
print("loaded")
def run(images):
    print("called")
    here = os.listdir(os.path.dirname(given))
    return 2 * images, torch.tensor([len(images), os.getpid(), len(here)])
"""


def test_batches_are_answered_one_by_one_by_one_process_that_ends() -> None:
    with alone(DOUBLED, [], what="doubled") as run:
        batches = [torch.full((count, 3), float(count)) for count in (7, 7, 2)]
        found = [run(one) for one in batches]
    assert all(torch.equal(one[0], 2 * batch) for one, batch in zip(found, batches, strict=True))
    counts, processes, files = zip(*(one[1].tolist() for one in found), strict=True)
    assert counts == (7, 7, 2), "what the code prints is no answer"
    assert len(set(processes)) == 1
    assert max(files) <= 3, "a batch takes the place of the one before it: given, found and errors"
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import numpy", "No module named 'numpy'"),
        (
            "def run(images):\n    raise ValueError('of the second' * (len(images) - 1))",
            "ValueError: of the second",
        ),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_what_fails_there_is_said_with_its_last_line(code: str, words: str) -> None:
    words = f"it does not run where there is only torch: .*{words}"
    with pytest.raises(RunError, match=words), alone(code, [], what="it") as run:
        run(torch.zeros(2))
        run(torch.zeros(2))


def test_what_takes_too_long_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0)
    monkeypatch.setattr(module, "_SECONDS_AN_IMAGE", 1)
    words = "it was not done in 1 s where there is only torch; compare it on fewer images"
    with pytest.raises(RunError, match=words), alone("import time\ntime.sleep(600)", [], what="it") as run:
        run(torch.zeros(1))


def test_a_path_of_this_process_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "word.txt").write_text("seven")
    monkeypatch.chdir(tmp_path)
    code = "word = open(sys.argv[1]).read()\ndef run(images):\n    return [images + len(word)]"
    with alone(code, [Path("word.txt")], what="it") as run:
        assert run(torch.zeros(1))[0].tolist() == [5.0]
