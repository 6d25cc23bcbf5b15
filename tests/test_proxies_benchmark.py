"""The comparison of proxies, small: one supernet trained and scored, scores at random weights, all against a table."""

import json
import runpy
import shlex
from pathlib import Path
from statistics import fmean

import pytest

from nas.config import read_yaml
from nas.methods.catalog import check_search
from nas.methods.spaces import crnas_recipe, stage_space
from nas.proxies.tabular import Table, TabularNetwork, write_table
from search_spaces.cost import cost

ROOT = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/proxies.py"))
ARM = "supernet prefix, fair, 3000 steps"


def truth(path: Path) -> Table:
    """AP is the logarithm of parameters, so that one of the rivals that cost nothing is perfect."""
    recipe = check_search(read_yaml(ROOT / "examples/recipes/crnas_bccd.yaml"), source="bccd")
    networks = []
    for one in stage_space(crnas_recipe(recipe).space).enumerate():
        found = cost(one, (64, 64))
        scores = {seed: (10.0 + found.params / 1e6 + 0.001 * seed,) for seed in range(2)}
        networks.append(TabularNetwork(architecture=one, params=found.params, macs=found.macs, scores=scores))
    table = Table(
        name="made_up",
        space="31",
        images_trained=48,
        epochs=(4.0,),
        image_size=(64, 64),
        networks=tuple(networks),
    )
    write_table(table, path)
    return table


def test_every_proxy_stands_in_one_file(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = truth(tmp_path / "truth.json")
    words = ["--truth", str(tmp_path / "truth.json"), "--root", str(shared_data / "bccd-tiny"), "--small"]
    words += ["--dir", str(tmp_path / "runs"), "--to", str(tmp_path / "found.json"), "--arms", ARM]
    BENCHMARK["main"](words)
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert str(tmp_path) not in text and str(shared_data) not in text
    assert found["networks"] == 31 and found["ceiling"]["tau"] == pytest.approx(1.0)
    arms = found["arms"]
    assert {
        ARM,
        f"{ARM}, BN as trained",
        f"{ARM}, 4 batches",
        "naswot",
        "synflow",
        "entropy",
        "fields for boxes",
        "parameters",
    } <= set(arms)
    assert f"mean rank of {ARM} and naswot" in arms
    assert arms["parameters"]["seeds"][0]["tau"]["value"] == pytest.approx(1.0)
    assert arms["naswot"]["macs"] == 0 and arms[ARM]["share_of_table"] > 0
    assert len(found["scores"][ARM][0]) == len(table.networks)
    assert ARM in capsys.readouterr().out
    # Nothing is trained or scored again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}
    BENCHMARK["main"](words)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")} == before
    trained, free = found["made_by"][f"{ARM}, 4 batches"]["command"], found["made_by"]["naswot"]["command"]
    assert shlex.split(trained)[-3:] == ["1", "--arms", ARM] and shlex.split(free)[-1] == "--arms"
    # The searches of these supernets, scored with fewer batches: those that the file has already.
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    whole = runpy.run_path(str(ROOT / "benchmarks/whole_searches.py"))
    runs = [str(path.parent) for path in (tmp_path / "runs").glob("*/winner.yaml")]
    files = [
        "--truth",
        words[1],
        "--proxies",
        str(tmp_path / "found.json"),
        "--to",
        str(tmp_path / "whole.json"),
    ]
    whole["main"]([*runs, *files])
    text = (tmp_path / "whole.json").read_text(encoding="utf-8")
    searches = json.loads(text)
    assert str(tmp_path) not in text
    assert searches["rescored"]["0"]["scores"] == found["scores"][f"{ARM}, 4 batches"][0]
    assert searches["by_seed"]["0"]["rows"]["proxy"]["tau"] == arms[ARM]["seeds"][0]["tau"]
    assert searches["mean_rescored"]["tau"] == searches["rescored"]["0"]["tau"], "of one search"
    whole["main"]([*runs, "--as-searched", *files])
    ranked = json.loads((tmp_path / "whole.json").read_text(encoding="utf-8"))
    assert ranked["by_seed"] == searches["by_seed"] and ranked["agreement"] == {"0": None}
    assert ranked["mean"]["proxy"]["tau"] == pytest.approx(arms[ARM]["seeds"][0]["tau"]["value"], abs=1e-4)
    with pytest.raises(SystemExit):
        whole["main"]([str(tmp_path), *files])
    assert "error:" in capsys.readouterr().err
    # What another machine has measured stays, whatever is in the folder here, and more seeds are not replaced by fewer.
    for part in ("scores", "arms", "made_by"):
        found[part]["elsewhere"] = found[part][ARM]
    found["scores"][ARM] = 2 * [dict.fromkeys(found["scores"][ARM][0], 1.0)]
    (tmp_path / "found.json").write_text(json.dumps(found), encoding="utf-8")
    BENCHMARK["main"](words)
    again = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert again["scores"] == found["scores"] and again["made_by"] == found["made_by"]
    assert again["arms"]["elsewhere"] == found["arms"]["elsewhere"]
    found["scores"]["elsewhere"] = [{"another network": 1.0}]
    (tmp_path / "found.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"found\.json is of other networks than made_up; name another file"):
        BENCHMARK["main"](words)


def test_the_proof_is_what_the_measured_files_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    proof = runpy.run_path(str(ROOT / "benchmarks/proof.py"))
    table = truth(tmp_path / "truth.json")
    right = table.truth()
    best = max(right, key=lambda digest: right[digest])
    worst = min(right.values())
    first, second, *_ = sorted(right, key=lambda digest: -right[digest])
    # One pair of neighbours in the wrong order, so that an interval exists.
    nearly = {**right, first: right[second], second: right[first]}
    wrong = {digest: -value for digest, value in right.items()}
    # Five seeds whose luck cancels out, and one more that is left over.
    luck = {digest: (-1.0) ** place * (1.0 + place) for place, digest in enumerate(nearly)}
    lucky = [{one: nearly[one] + times * luck[one] for one in nearly} for times in (1, -1, 2, -2, 0)]
    scores = {proof["SHORT"]: [*lucky, wrong], proof["LONG"]: [right, wrong], "naswot": [right]}
    # The best network is not among their first, but for one seed, and they have luck of another kind.
    last = {**right, best: worst - 1.0}
    scores[proof["PREFIX"]] = [right, last, last, last, last]
    macs = {name: {"macs": 0.1 * proof["table_macs"](table)} for name in scores}
    (tmp_path / "proxies.json").write_text(json.dumps({"scores": scores, "arms": macs}), encoding="utf-8")
    speed = {"evaluation_speedup": 8.0, "search_speedup": 3.0, "same_scores_speedup": 2.0}
    (tmp_path / "cost.json").write_text(json.dumps(speed), encoding="utf-8")
    words = ["--proxies", str(tmp_path / "proxies.json"), "--cost", str(tmp_path / "cost.json")]
    words += ["--truth", str(tmp_path / "truth.json"), "--to", str(tmp_path / "proof.json")]
    words += ["--prefix-cost", str(tmp_path / "prefix.json"), "--searches", str(tmp_path / "searches.json")]
    words += ["--ensembles", str(tmp_path / "ensembles.json")]
    proof["main"](words)
    found = json.loads((tmp_path / "proof.json").read_text(encoding="utf-8"))
    assert "prefix" not in found, "its cost is not known"
    assert "supernet_tau_with_searches" not in found and "ensemble_searches" not in found
    ensembles = {
        "by_seed": {"3": {}, "4": {}},
        "mean": {"proxy": {"tau": 0.7}, "mean rank of both": {"tau": 0.8}},
    }
    (tmp_path / "ensembles.json").write_text(json.dumps(ensembles), encoding="utf-8")
    (tmp_path / "searches.json").write_text(json.dumps({"mean_rescored": {"tau": 0.5}}), encoding="utf-8")
    (tmp_path / "prefix.json").write_text(json.dumps({**speed, "evaluation_speedup": 9.0}), encoding="utf-8")
    proof["main"](words)
    found = json.loads((tmp_path / "proof.json").read_text(encoding="utf-8"))
    assert found["independent_tau"] == pytest.approx(1 - 2 / 465, abs=0.02)
    # Last of 31 in four of five, and in their mean: 30 pairs of 465 are the wrong way round.
    assert found["supernet_tau"] == pytest.approx(1 - 60 / 465, abs=0.03)
    assert found["independent_tau_low"] < found["independent_tau"]
    assert found["ensemble_searches"] == {"searches": 2, "supernet": {"tau": 0.7}, "chosen": {"tau": 0.8}}
    assert found["supernet_tau_with_searches"] == pytest.approx((found["supernet_tau"] + 0.5) / 2, abs=1e-4)
    assert found["trainings_of_table"] == 62, "two seeds of 31"
    assert found["supernet_share_of_three_seeds"] == pytest.approx(found["supernet_share_of_table"] * 2 / 3)
    assert found["one_supernet_tau"] < 0.5 and found["supernet_share_of_table"] == pytest.approx(0.5)
    assert found["supernet_regret_at_3"] == pytest.approx(right[best] - right[second], abs=1e-3)
    several = proof["of_several"](5, proof["SHORT"])
    assert several.startswith("mean of 5 supernets independent, uniform")
    assert len(found["arms"][several]["tau"]) == 1 and len(found["arms"][proof["SHORT"]]["tau"]) == 6
    assert len(found["arms"][proof["of_several"](3, proof["SHORT"])]["tau"]) == 2
    assert f"mean rank of naswot and {several}" in found["arms"]
    long = found["arms"][proof["LONG"]]
    assert long["seed_to_seed_tau"] == -1.0 and long["tau_of_mean"] is None, "right and wrong cancel out"
    assert found["arms"]["naswot"]["seed_to_seed_tau"] is None
    assert proof["of_several"](3, proof["LONG"]) not in found["arms"], "it has two seeds"
    assert found["supernet_tau_low"] < found["supernet_tau"] and found[
        "supernet_tau_ceiling"
    ] == pytest.approx(1.0)
    assert (found["evaluation_speedup"], found["search_speedup"]) == (8.0, 3.0)
    chosen = found["arms"][f"mean rank of naswot and {proof['of_several'](5, proof['PREFIX'])}"]["mean_tau"]
    assert (found["chosen_tau"], found["chosen_tau_low"]) == (chosen["value"], chosen["low"])
    long = found["arms"][proof["LONG"]]
    assert long["tau"][0] == pytest.approx(1.0) and long["tau"][1] == pytest.approx(-1.0)
    assert long["winners"][0] == best and long["regret_at_3"][0] == 0.0
    assert long["share_of_table"] == pytest.approx(0.1)
    both = found["arms"][f"mean rank of naswot and {proof['LONG']}"]
    assert both["tau"] == [pytest.approx(1.0)], (
        "and where one says the opposite of the other there is no order"
    )
    assert both["share_of_table"] == pytest.approx(0.1)
    winners = found["arms"][f"mean rank of naswot and {proof['SHORT']}"]["ap_of_winners"]
    apart = sum(winners[:2]) / 2 - (right[best] + worst) / 2
    assert found["short_minus_long_ap"]["mean"] == pytest.approx(apart, abs=0.01)
    by_score = found["arms"][proof["SHORT"]]["ap_of_winners"]
    apart = fmean(a - b for a, b in zip(winners, by_score, strict=True))
    assert found["mean_rank_minus_score_ap"]["mean"] == pytest.approx(apart, abs=1e-6)
    assert found["mean_rank_minus_score_ap"]["seeds"] == list(range(6))
    assert found["arms"]["MACs"]["mean_tau"]["value"] is None, "equal in all of them"
    prefix, short = found["prefix"], found["arms"][f"mean rank of naswot and {proof['SHORT']}"]
    assert prefix["supernet_tau"] == pytest.approx(1 - 0.8 * 60 / 465)
    assert prefix["supernet_tau_low"] < prefix["supernet_tau"] and prefix["share_of_table"] == pytest.approx(
        0.1
    )
    assert (prefix["evaluation_speedup"], prefix["search_speedup"]) == (9.0, 3.0)
    chosen = found["arms"][f"mean rank of naswot and {proof['PREFIX']}"]
    apart = fmean(chosen["tau"]) - fmean(short["tau"][:5])
    assert prefix["chosen_tau_minus_short"]["mean"] == pytest.approx(apart, abs=1e-3)
    assert prefix["chosen_regret_at_3"] == pytest.approx(fmean(chosen["regret_at_3"]))
    apart = fmean(a - b for a, b in zip(chosen["ap_of_winners"], short["ap_of_winners"], strict=False))
    assert prefix["ap_minus_short"]["mean"] == pytest.approx(apart, abs=1e-6)
    assert prefix["ap_minus_long"]["seeds"] == [0, 1]
    drawn = (tmp_path / "proof.svg").read_text(encoding="utf-8")
    assert "parameters" in drawn and "without error: 1.00" in drawn and ">MACs<" not in drawn
