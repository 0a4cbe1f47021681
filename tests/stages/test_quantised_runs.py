"""Runs on packed weights: they go on to the last bit, keep their weights as they began, and say what those were."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.config.compose import load
from fpt.errors import UserError
from tests.conftest import Outcome, stopped_after

Cli = Callable[..., Outcome]
STAGES = "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.5}, {share: 0.5}]"


@pytest.mark.trains
def test_a_run_on_packed_weights_from_start_to_export(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """Stopped in its second stage, it comes to what an uninterrupted one comes to."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    quick = [*quick, STAGES, "train.updates=8", "task.valid_examples=6", "engine.quantize=nf4"]
    with stopped_after(5):
        cli("train", *quick)
    refused = cli("train", *quick, "engine.quantize=int8")
    assert refused.status == 2
    assert "engine.quantize: nf4 then, int8 now" in refused.err
    gone_on = cli("train", *quick, "resume=must")
    assert gone_on.status == 0, gone_on.err
    assert "its blocks' linear layers in nf4" in gone_on.err
    assert cli("train", *quick, f"run.dir={whole}").status == 0
    assert (run / "prompt.safetensors").read_bytes() == (whole / "prompt.safetensors").read_bytes()
    result, plan = (json.loads((run / name).read_text()) for name in ("result.json", "plan.json"))
    assert result["quantize"] == plan["quantize"] == "nf4"
    assert all(row["weight_bytes"] < 4 * row["parameters"] for row in plan["stages"])
    scored = cli("eval", f"run={run}", "--json")
    assert json.loads(scored.out)["metrics"] == result["metrics"]
    assert cli("eval", f"run={run}", "engine.quantize=none", f"output={tmp_path / 'plain.jsonl'}").status == 0
    assert cli("export", f"run={run}", "to=fpt", f"output={tmp_path / 'export'}").status == 0
    assert "linear layers packed as nf4" in (tmp_path / "export" / "README.md").read_text()


@pytest.mark.parametrize("words", [["engine=deepspeed"], ["engine.offload=cpu"]])
def test_deepspeed_shares_out_no_packed_weights(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"engine\.quantize=int8: is for engine=torch"):
        load(["engine.quantize=int8", *words])
