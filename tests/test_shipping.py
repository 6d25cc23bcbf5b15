"""A phase of a run on its way to a node that does not see the run's directory."""

import pickle
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.config import apply_overrides, read_yaml
from nas.methods.catalog import check_search, procedure
from nas.methods.crnas import ALLOCATION
from nas.methods.data import open_data
from nas.methods.shipping import MARK, MovedStaged, open_shipped, pack, place_of
from nas.progress import Silent
from nas.proxies.base import StagedProxy
from nas.run import Run
from nas.show import histories
from search_spaces.errors import ConfigError, DataError, RunError

RECIPES = Path(__file__).parent / "recipes"


def begun(directory: Path, name: str, *overrides: str) -> Run:
    recipe = check_search(apply_overrides(read_yaml(RECIPES / name), overrides), source=name)
    return Run.create(directory, recipe)


def test_pixels_for_which_memory_is_too_small_do_not_travel() -> None:
    given = apply_overrides(read_yaml(RECIPES / "tiny.yaml"), ["engine=ray", "data.cache=pixels"])
    with pytest.raises(
        ConfigError, match=r"ray\.data_on_nodes: found False; allowed is true where there is a data\.cache"
    ):
        check_search(given, source="r")
    on_nodes = check_search(apply_overrides(given, ["ray.data_on_nodes=true"]), source="r")
    assert on_nodes.data.cache == "pixels"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of another node."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", ["tiny.yaml", "tiny_spinenet.yaml"])
def test_a_node_without_the_directory_scores_the_same(tmp_path: Path, elsewhere: Path, name: str) -> None:
    run = begun(tmp_path / "run", name, "retrain=null")
    procedure(run.recipe).carry_out(run, Silent())
    data = open_data(run, Silent())
    for phase, history in histories(run).items():
        shipment = pickle.loads(pickle.dumps(pack(run, phase, data)))  # noqa: S301
        assert place_of(shipment) == run.directory, "where it is seen it is used"
        # Gone for the worker: it may not be needed for anything.
        moved = run.directory.rename(tmp_path / "hidden")
        proxy = open_shipped(shipment)
        record = next(one for one in reversed(history) if one.value is not None)
        assert proxy(record.candidate).value == record.value
        if isinstance(proxy, StagedProxy):
            proxy.at(record.candidate, 3)
            proxy.drop(record.candidate)
        moved.rename(run.directory)
        assert len(list(elsewhere.iterdir())) == 1
        assert place_of(replace(shipment, name="another")) != place_of(shipment)
        shutil.rmtree(elsewhere)
        elsewhere.mkdir()


def test_pixels_travel_as_an_array_and_come_out_equal(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "tiny_spinenet.yaml", "retrain=null")
    data = open_data(run, Silent())
    shipment = pack(run, "search", data)
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(shipment, protocol=5, buffer_callback=buffers.append)
    pixels = data.train_set.images.numel() + data.held_out.images.numel()
    assert sum(buffer.raw().nbytes for buffer in buffers) == pixels, "they are beside the pickle, not in it"
    assert len(text) < pixels / 4
    there = pickle.loads(text, buffers=[bytes(buffer) for buffer in buffers])  # noqa: S301
    assert there.data is not None
    for packed, here in zip(there.data, (data.train_set, data.held_out), strict=True):
        assert torch.equal(packed.unpacked().images, here.images)
        assert packed.unpacked().digest == here.digest
    assert (run.directory / MARK).read_text() == shipment.name


def test_a_cluster_that_is_not_there_is_found_out_before_anything_is_trained(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "tiny.yaml", "engine=ray", "ray.address=127.0.0.1:1")
    with pytest.raises(RunError, match=r"ray.address: found '127.0.0.1:1'.*Start a cluster with ray start"):
        procedure(run.recipe).carry_out(run, Silent())
    assert not (run.directory / "stages").exists()


def test_images_that_a_node_should_have_are_named_with_it(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run", "tiny_spinenet.yaml", "retrain=null", "ray.data_on_nodes=true")
    shipment = pack(run, "search", open_data(run, Silent()))
    assert shipment.data is None
    assert not isinstance(open_shipped(shipment), MovedStaged)
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-7")

    def missing(*_: object, **__: object) -> None:
        raise DataError("/data/cells/annotations/train.json: no such file")

    monkeypatch.setattr("nas.methods.data.open_split", missing)
    with pytest.raises(DataError, match=r"node gpu-7: /data/cells/.*no such file.*ray.data_on_nodes=false"):
        open_shipped(shipment)


def test_the_first_step_of_crnas_travels_as_a_file(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "tiny.yaml", "retrain=null")
    procedure(run.recipe).carry_out(run, Silent())
    shipment = pack(run, "dilations", open_data(run, Silent()))
    assert set(shipment.files) == {"recipe.yaml", ALLOCATION, "dilations/checkpoint.pt"}
