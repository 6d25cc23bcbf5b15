"""Bundles that somebody has made to do harm: each is refused with the path of the file, before it is believed."""

import hashlib
import json
import os
import pickle
import re
import shutil
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trainers.weights
from nas.export import manifest
from nas.export.bundle import export_bundle, load_bundle, load_detector
from nas.export.card import Card
from nas.export.manifest import MANIFEST, declare_again, read_manifest
from nas.predicting import predict
from nas.resolve import read_architecture
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import RunError, VertebraError
from search_spaces.spinenet.zoo import ZOO, proxy, with_settings
from search_spaces.strict_json import parse_json

WEIGHTS = "detector.safetensors"


class Bomb:
    """A pickle that leaves a trace where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def refused(folder: Path, load: Callable[[Path], object] = load_detector) -> str:
    """What is said, having taken little time, and of Python's memory."""
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(VertebraError) as error:
        load(folder)
    assert time.process_time() - begin < 10
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()
    return str(error.value)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: object, numbers: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Content of a file of weights with another header."""

    def apply(content: bytes) -> bytes:
        header, numbers = header_of(content)
        change(header)
        return with_header(header, numbers)

    return apply


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = header[next(name for name in header if name != "__metadata__")]
    return entry


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def swap(header: dict[str, Any]) -> None:
    """Two tensors at one place."""
    names = [name for name in header if name != "__metadata__"]
    same = next(
        (a, b)
        for a in names
        for b in names
        if a < b and header[a]["shape"] == header[b]["shape"] and header[a]["dtype"] == header[b]["dtype"]
    )
    header[same[0]]["data_offsets"] = header[same[1]]["data_offsets"]


HOSTILE_WEIGHTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda content: b"", "no safetensors file"),
    "pickle": (lambda content: pickle.dumps({"weights": [1.0] * 100}), "no safetensors file"),
    "huge header": (lambda content: struct.pack("<Q", 2**63) + content[8:], "states a header of"),
    "header beyond the file": (
        lambda content: struct.pack("<Q", len(content)) + content[8:],
        "states a header",
    ),
    "header no object": (lambda content: with_header([], b""), "no object"),
    "header no JSON": (lambda content: with_header(b"\xff\xfe{}", b""), "cannot be read as JSON"),
    "deep header": (lambda content: with_header(nested(100_000), b""), "more than 32 deep"),
    "a key twice": (
        lambda content: with_header(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
        "in one object twice",
    ),
    "a key twice after many": (
        lambda content: with_header(
            b"{" + b"".join(b'"%d":0,' % one for one in range(100_000)) + b'"z":0,"z":0}', b""
        ),
        "'z' stands in one object twice",
    ),
    "infinite": (lambda content: with_header(b'{"a":1e999}', b""), "not finite"),
    "NaN": (lambda content: with_header(b'{"a":NaN}', b""), "no JSON number"),
    "huge shape": (rewritten(lambda h: first(h).update(shape=[2**40, 2**40])), "does not fill"),
    "negative shape": (rewritten(lambda h: first(h).update(shape=[-1, -8])), "whole numbers from 0"),
    "endless shape": (rewritten(lambda h: first(h).update(shape=[10**18] * 200_000)), "has 200,000 numbers"),
    "shape no list": (rewritten(lambda h: first(h).update(shape="8")), "whole numbers from 0"),
    "true shape": (rewritten(lambda h: first(h).update(shape=[True])), "whole numbers from 0"),
    "other dtype": (rewritten(lambda h: first(h).update(dtype="OBJECT")), "found dtype 'OBJECT'"),
    "no offsets": (
        rewritten(lambda h: first(h).pop("data_offsets")),
        "exactly dtype, shape and data_offsets",
    ),
    "one key more": (rewritten(lambda h: first(h).update(code="x")), "exactly dtype, shape and data_offsets"),
    "offsets beyond": (
        rewritten(lambda h: first(h).update(data_offsets=[2**40, 2**40 + 32])),
        "does not fill|begins at",
    ),
    "offsets backwards": (rewritten(lambda h: first(h).update(data_offsets=[64, 0])), "does not fill"),
    "overlap": (rewritten(swap), "overlap or leave holes"),
    "hole at the end": (lambda content: content + b"more", "has .* of numbers"),
    "metadata": (rewritten(lambda h: h.update(__metadata__={"a": [1]})), "__metadata__"),
}


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_weights_are_checked_before_they_are_read(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers.weights, "load", None)
    change, reason = HOSTILE_WEIGHTS[name]
    path = copy / WEIGHTS
    path.write_bytes(change(path.read_bytes()))
    # Whoever changes a file can declare it too.
    declare_again(copy)
    text = refused(copy)
    assert str(path) in text or "cannot be built" in text
    assert re.search(reason, text), text


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
def test_the_exported_source_refuses_them_too(bundle: Path, tmp_path: Path, name: str) -> None:
    space: dict[str, Any] = {"__name__": "backbone"}
    exec(compile((bundle / "backbone.py").read_text(), "backbone.py", "exec"), space)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(HOSTILE_WEIGHTS[name][0]((bundle / "weights.safetensors").read_bytes()))
    tracemalloc.start()
    if name == "metadata":
        # Which it does not look at.
        assert space["read_safetensors"](str(path))
    else:
        with pytest.raises(ValueError, match=r"weights\.safetensors"):
            space["load"](str(path))
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("head.scores.weight", state.popitem()), "missing"),
        (lambda state: state.update(extra=torch.zeros(2)), r"1 too many \('extra'\)"),
        (lambda state: state.update({next(iter(state)): torch.zeros(3, 3)}), "of another form"),
        (lambda state: state.update({k: v.double() for k, v in state.items() if v.ndim == 4}), "is float64"),
        (lambda state: [v.fill_(float("nan")) for v in state.values() if v.ndim == 4], "NaN or infinity"),
    ],
    ids=["missing", "extra", "shape", "dtype", "nan"],
)
def test_tensors_have_to_be_those_of_the_network(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], object], reason: str
) -> None:
    for name, load in (("weights.safetensors", load_bundle), (WEIGHTS, load_detector)):
        state = load_file(copy / name)
        change(state)
        save_file(state, copy / name)
        declare_again(copy)
        text = refused(copy, load)
        assert str(copy / name) in text and re.search(reason, text), text


@pytest.mark.parametrize("name", ["architecture.json", "detector.json", WEIGHTS, MANIFEST])
def test_a_pickle_is_never_run(copy: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    for content in (pickle.dumps(Bomb(trace)), archive(tmp_path / "x.pt", {"x": Bomb(trace)})):
        (copy / name).write_bytes(content)
        if name != MANIFEST:
            declare_again(copy)
        assert str(copy / name) in refused(copy) or name == WEIGHTS
        assert not trace.exists()


def archive(path: Path, data: object) -> bytes:
    """What torch.save writes of anything."""
    torch.save(data, path)
    return path.read_bytes()


def sealed(folder: Path, **changes: Any) -> None:
    """``bundle.json`` as its maker could have written it."""
    old = read_manifest(folder)
    new = manifest.Manifest(kind=old.kind, architecture=old.architecture, about=old.about, files=old.files)
    (folder / MANIFEST).write_text(manifest._text(replace(new, **changes)), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "targets/../../secret",
        "./architecture.json",
        "a//b",
        "a\\..\\b",
        "C:secret",
        ".hidden",
        "a/b/c/d/e",
        "line\nbreak",
        "",
        "x" * 300,
        "bundle.json",
    ],
)
def test_names_that_lead_out_are_refused_unread(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy.parent / "secret").write_text("secret")
    declared = manifest.Declared(bytes=6, sha256=hashlib.sha256(b"secret").hexdigest())
    sealed(copy, files={**read_manifest(copy).files, name: declared})
    monkeypatch.setattr(manifest, "open_declared", None)
    text = refused(copy)
    assert str(copy / MANIFEST) in text and "allowed are names in the bundle" in text


@pytest.mark.parametrize("name", ["architecture.json", WEIGHTS, "README.md"])
def test_links_and_other_things_are_not_followed(copy: Path, name: str) -> None:
    path = copy / name
    path.rename(copy.parent / "elsewhere")
    path.symlink_to(copy.parent / "elsewhere")
    assert f"{path} is no regular file" in refused(copy)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is no regular file" in refused(copy)
    path.unlink()
    path.mkdir()
    assert f"{path} is no regular file" in refused(copy)
    path.rmdir()
    assert f"{path}: cannot be read: No such file" in refused(copy)


def test_linked_folders_are_not_followed(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.py").write_text("x = 1")
    declared = manifest.Declared(bytes=5, sha256=hashlib.sha256(b"x = 1").hexdigest())
    sealed(copy, files={**read_manifest(copy).files, "targets/a.py": declared})
    (copy / "targets").symlink_to(tmp_path / "outside")
    assert f"{copy / 'targets'} is a link" in refused(copy)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as JSON"),
        (b"[]", "describes no bundle"),
        (b'{"schema": 2}', "is of schema 2, this version reads 1"),
        (b'{"schema": true}', "found the keys|of schema|no bundle"),
        (b'{"schema": 1}', "found the keys"),
        (b'{"schema": 1, "schema": 1}', "in one object twice"),
        (b'{"schema": ' + b"9" * 30 + b"}", "30 digits"),
        (b'{"schema": 1e999}', "not finite"),
        (nested(200_000), "more than 32 deep"),
        (b'{"schema": ' + nested(40) + b"}", "more than 32 deep"),
        (b" " * (5 * 2**20), "more than 4,194,304 bytes"),
        (b'{"schema": 1, "kind": "\xff"}', "cannot be read as JSON"),
        (
            b'{"about": {"title": "\\ud800"}, "architecture": "", "digest": "", "files": {}, "kind": "backbone", '
            b'"schema": 1}',
            "half a character",
        ),
    ],
    ids=range(13),
)
def test_a_manifest_of_another_form_is_refused(copy: Path, content: bytes, reason: str) -> None:
    (copy / MANIFEST).write_bytes(content)
    text = refused(copy)
    assert str(copy / MANIFEST) in text and re.search(reason, text), text


def test_a_manifest_that_was_edited_is_refused(copy: Path) -> None:
    path = copy / MANIFEST
    whole = path.read_text()
    mean = json.loads(whole)["about"]["scores"]["trained"]["mean"]
    for changed in (whole.replace(str(mean), "0.9"), whole + " ", whole.replace(" ", "  ", 1)):
        path.write_text(changed)
        assert f"{path} is not as it was written" in refused(copy)


def test_a_manifest_without_its_parts_or_of_too_many(copy: Path) -> None:
    files = read_manifest(copy).files
    sealed(copy, files={name: one for name, one in files.items() if name != WEIGHTS})
    assert f"{copy / WEIGHTS} is not declared" in refused(copy)
    sealed(copy, kind="detector", files={f"f{n}": files[WEIGHTS] for n in range(1001)})
    assert "declares 1001 files" in refused(copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": [2**40, 32]}, "image_size: found"),
        ({"image_size": [64, 64, 64]}, "image_size: found"),
        ({"image_size": [48, 64]}, "cannot be built"),
        ({"fit": 10**9}, "fit: found"),
        ({"fit": "64"}, "fit: found"),
        ({"categories": []}, "categories: needed"),
        ({"categories": [{"id": 1, "name": 2}, {"id": 1, "name": "x"}]}, "categories: found"),
        ({"categories": [{"id": 2, "name": "a"}, {"id": 1, "name": "b"}]}, "ids are to rise"),
        ({"categories": [{"id": n, "name": "x"} for n in range(3)]}, "of another form"),
        ({"recipe": {"name": "alien"}}, "recipe|name"),
        ({"recipe": {"head_convs": 10**9}}, "describes a network of more than|cannot be built"),
        ({"recipe": {"fpn_channels": 2**40}}, "another form|cannot be built|missing"),
        ({"more": 1}, "needed are exactly"),
    ],
    ids=range(13),
)
def test_a_detector_that_does_not_fit_is_refused(copy: Path, change: dict[str, Any], reason: str) -> None:
    path = copy / "detector.json"
    data = json.loads(path.read_text())
    recipe = data["recipe"] | change.pop("recipe", {})
    path.write_text(json.dumps({**data, "recipe": recipe, **change}))
    declare_again(copy)
    text = refused(copy)
    assert str(copy) in text and re.search(reason, text), text


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"widths": [2**50] * 4}},
        {"settings": {"widths": [2**70] * 4}},
        {"genes": {"blocks": [10**9, 1, 1, 1]}},
        {"genes": {"blocks": [1, 1, 1, 5000], "dilations": [1] * 5003}},
    ],
    ids=range(4),
)
def test_an_architecture_of_any_size_is_refused(copy: Path, change: dict[str, Any]) -> None:
    path = copy / "architecture.json"
    data = json.loads(path.read_text())
    for part, values in change.items():
        data[part] |= values
    path.write_text(json.dumps(data))
    declare_again(copy)
    sealed(copy, architecture=Architecture.from_dict(data).digest)
    assert str(copy) in refused(copy)


def test_a_scale_permuted_network_of_a_billion_blocks_is_not_built(tmp_path: Path) -> None:
    small = proxy(ZOO["r23_sp30"], width=0.125, endpoint=8)
    folder = export_bundle(small, family_of(small).build(small).state_dict(), tmp_path / "b", Card(title="x"))
    many = with_settings(small, {"repeats": 10**9})
    (folder / "architecture.json").write_text(json.dumps(many.to_dict()))
    declare_again(folder)
    sealed(folder, architecture=many.digest)
    assert "describes a network of more than" in refused(folder, load_bundle)


def spy(folder: Path, name: str, trace: Path) -> None:
    (folder / "targets").mkdir(exist_ok=True)
    (folder / "targets" / name).write_text(f"import os\nos.mkdir({str(trace)!r})\nclass Evil: pass\n")


def test_code_is_run_only_where_it_is_declared_and_trusted(copy: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    spy(copy, "evil.py", trace)
    assert f"{copy / 'targets/evil.py'} is not declared" in refused(copy)
    path = copy / "detector.json"
    data = json.loads(path.read_text())
    named = {**data["recipe"], "name": None, "target": "targets/evil.py:Evil"}
    path.write_text(json.dumps({**data, "recipe": named}))
    declare_again(copy)
    text = refused(copy)
    assert "brings code of its own" in text and "evil.py:Evil" in text and "--trust-code" in text
    with pytest.raises(RunError, match="brings code of its own"):
        predict(copy, [tmp_path], tmp_path / "out", device="cpu")
    assert not trace.exists()
    refused(copy, lambda folder: load_detector(folder, trust_code=True))  # no detector, but run it was
    assert trace.exists()


@pytest.mark.parametrize(
    "target", ["../evil.py:Evil", "/{tmp}/evil.py:Evil", "targets/../evil.py:Evil", "targets/no.py:X"]
)
def test_code_from_elsewhere_is_never_run(copy: Path, tmp_path: Path, target: str) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(trace)!r})\nclass Evil: pass\n")
    path = copy / "detector.json"
    data = json.loads(path.read_text())
    named = {**data["recipe"], "name": None, "target": target.replace("{tmp}", str(tmp_path)[1:])}
    path.write_text(json.dumps({**data, "recipe": named}))
    declare_again(copy)
    assert "declares no targets/" in refused(copy, lambda folder: load_detector(folder, trust_code=True))
    assert not trace.exists()


def test_installed_modules_are_not_imported_untrusted(copy: Path) -> None:
    path = copy / "detector.json"
    data = json.loads(path.read_text())
    named = {**data["recipe"], "name": None, "target": "antigravity:Evil"}
    path.write_text(json.dumps({**data, "recipe": named}))
    declare_again(copy)
    assert "antigravity:Evil" in refused(copy)
    assert "antigravity" not in sys.modules


def test_a_bundle_of_before_is_refused_with_what_to_do(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    for load in (load_detector, load_bundle):
        text = refused(copy, load)
        assert f"{copy} holds no bundle.json" in text and "nas export RUN --to" in text


def test_commands_that_read_the_architecture_alone_check_it_too(copy: Path) -> None:
    assert read_architecture(str(copy)).digest == read_manifest(copy).architecture
    path = copy / "architecture.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    assert f"{path} is not the file that bundle.json declares" in refused(
        copy, lambda folder: read_architecture(str(folder))
    )


def test_json_within_bounds_is_json(tmp_path: Path) -> None:
    data = {"a": [1, -2.5, None, True, {"b": "\u00e9"}], "c": 2**62}
    assert parse_json(json.dumps(data).encode(), "x", limit=1000) == data
    assert parse_json(nested(32), "x", limit=1000) is not None
    assert parse_json(b'["\\ud83d\\ude00"]', "x", limit=1000) == ["\U0001f600"]
    with pytest.raises(RunError, match="is 64 bytes of JSON; allowed are 10"):
        parse_json(nested(32), "x", limit=10)
