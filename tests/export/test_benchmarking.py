"""``nas benchmark``: what is timed, side by side, and when there is no number."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import narrow
from typer.testing import CliRunner, Result

import nas.benchmarking
from nas.benchmarking import Timing, benchmark, noise_in
from nas.cli import app
from nas.export.bundle import export_bundle
from nas.export.card import Card
from search_spaces.errors import ConfigError, RunError

NO_COMPILER = "does not work here: no compiler"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *(str(one) for one in arguments)])


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes minutes; the machine of the tests is not idle."""
    monkeypatch.setattr(nas.benchmarking, "_compiled", lambda *_: NO_COMPILER)
    monkeypatch.setattr(nas.benchmarking, "_load", lambda: 0.1)
    monkeypatch.setattr(nas.benchmarking.os, "cpu_count", lambda: 2)


def taking(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
    """Every pass takes what the number of its round says."""

    def in_turn(
        passes: Mapping[str, Callable[[], object]], *, repeats: int, **_: Any
    ) -> dict[str, list[float]]:
        return {name: [seconds(round_) for round_ in range(repeats)] for name in passes}

    monkeypatch.setattr(nas.benchmarking, "time_in_turn", in_turn)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return export_bundle(narrow(), None, tmp_path / "backbone", Card(title="test"))


def test_quartiles_spread_and_drift_by_hand() -> None:
    found = Timing.of([0.010, 0.020, 0.030, 0.040])
    assert (found.low_ms, found.median_ms, found.high_ms) == pytest.approx((17.5, 25.0, 32.5))
    assert found.spread == pytest.approx(15.0 / 25.0)
    assert found.drift == pytest.approx(35.0 / 15.0 - 1.0)
    steady = Timing.of([0.010] * 6)
    assert (steady.spread, steady.drift) == (0.0, 0.0)


def test_what_is_noise() -> None:
    steady, slow = Timing.of([0.01] * 8), Timing.of([0.01] * 4 + [0.0107] * 4)
    wide = Timing.of([0.010, 0.0125] * 4)
    assert noise_in({"eager": steady}, load=1.4, cores=2, threads=1) == ()
    assert noise_in({"eager": steady}, load=None, cores=2, threads=2) == ()
    assert "load 1.6 on 2 cores" in noise_in({"eager": steady}, load=1.6, cores=2, threads=1)[0]
    assert "load 0.6 on 2 cores" in noise_in({"eager": steady}, load=0.6, cores=2, threads=2)[0]
    (drift,) = noise_in({"a": steady, "b": slow}, load=0.0, cores=2, threads=1)
    assert drift == "b: the second half of the rounds is +7% off the first, allowed are 5%"
    (spread,) = noise_in({"eager": wide}, load=0.0, cores=2, threads=1)
    assert "spreads over 22% of their median" in spread


def test_a_detector_is_timed_as_it_is(bundle: Path) -> None:
    threads = torch.get_num_threads()
    found = benchmark(bundle, rounds=4)
    assert (found.kind, found.input_size, found.rounds, found.threads) == ("detector", (64, 64), 4, 1)
    assert set(found.timings) == {"eager"} and found.timings["eager"].median_ms > 0
    assert found.left_out["torch.compile"] == NO_COMPILER
    assert "holds no detector.onnx" in found.left_out["onnxruntime"]
    assert torch.get_num_threads() == threads
    small, large = (benchmark(bundle, (side, side), rounds=4) for side in (32, 512))
    assert large.timings["eager"].low_ms > 3 * small.timings["eager"].low_ms, "256 times the pixels"


def test_a_backbone_is_timed_where_there_is_no_detector(backbone: Path) -> None:
    found = benchmark(backbone, (64, 96), rounds=4)
    assert (found.kind, found.input_size) == ("backbone", (64, 96))
    assert "holds no backbone.onnx" in found.left_out["onnxruntime"]
    with pytest.raises(ConfigError, match="--input: is missing"):
        benchmark(backbone)


def test_a_steady_machine_gives_a_number(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, lambda _: 0.00525)
    result = command(bundle, "--input", "96x64")
    assert result.exit_code == 0, result.output
    assert "median ms" in result.stdout and "5.25 to 5.25" in result.stdout
    assert (
        "one image of 96x64, cpu, 1 thread(s) of 2 cores, load before 0.1, 40 rounds in turn" in result.stdout
    )
    assert f"torch.compile: {NO_COMPILER}" in result.stdout and "noisy" not in result.stdout
    data = json.loads(command(bundle, "--json").stdout)
    assert data["steady"] is True and data["timings"]["eager"]["median_ms"] == pytest.approx(5.25)


def test_a_noisy_machine_gives_none_and_says_why(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking(monkeypatch, lambda round_: 0.005 if round_ % 2 else 0.007)
    result = command(bundle)
    assert result.exit_code == 1
    assert "no number" in result.stdout and "median" not in result.stdout.split("This machine")[0]
    assert "too noisy for a number" in result.stdout and "allowed are 10%" in result.stdout
    assert "Stop other work" in result.stdout
    result = command(bundle, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["steady"] is False and data["timings"]["eager"]["median_ms"] is None and data["noise"]
    monkeypatch.setattr(nas.benchmarking, "_load", lambda: 7.0)
    taking(monkeypatch, lambda _: 0.005)
    assert "load 7.0 on 2 cores" in command(bundle).stdout


def test_mistakes(bundle: Path, tmp_path: Path) -> None:
    for options, text in (
        (("--threads", 3), "--threads: found 3; allowed are 1 to 2"),
        (("--rounds", 3), "--rounds: found 3"),
        (("--input", "64"), "--input: found '64'"),
        (("--input", "65x64"), "multiples of 32"),
        (("--device", "tpu9"), "device: found"),
    ):
        result = command(bundle, *options)
        assert result.exit_code == 2 and text in result.stderr, result.output
    with pytest.raises(RunError, match="no bundle in"):
        benchmark(tmp_path)


def test_the_onnx_file_of_a_bundle_is_timed_too(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    places = [helper.make_tensor_value_info(name, kind, [1, 3, 64, 64]) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["out"])], "g", places[:1], places[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def add(folder: Path) -> None:
        (folder / "backbone.onnx").write_bytes(model.SerializeToString())

    folder = export_bundle(narrow(), None, tmp_path / "b", Card(title="test"), more=add)
    found = benchmark(folder, (64, 64), rounds=4)
    assert set(found.timings) == {"eager", "onnxruntime"}
    found = benchmark(folder, (96, 64), rounds=4)
    assert "backbone.onnx does not run at this size" in found.left_out["onnxruntime"]
    (folder / "backbone.onnx").write_bytes(b"\0" + model.SerializeToString()[1:])
    with pytest.raises(RunError, match=r"backbone\.onnx is not the file"):
        benchmark(folder, (64, 64), rounds=4)


def test_a_compiler_that_fails_is_an_answer(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.undo()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr(torch.nn.Module, "compile", fail)
    found = benchmark(bundle, rounds=4)
    assert found.left_out["torch.compile"] == "does not work here: RuntimeError: no C++ compiler found"
