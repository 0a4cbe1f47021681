"""ZeRO-3 follows each pass from its start: it gathers ahead as much as is planned for, and what is small once."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fpt.backbones.backbone import open_backbone
from fpt.config import compose
from fpt.data.encoded import Batch
from fpt.devices import distributed
from fpt.devices import engine as engines
from fpt.devices.engine import Engine, open_device, with_precision
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from stages.partial import opened
from stages.selection import everything
from tests.conftest import save_checkpoint
from tests.processes import in_processes

pytestmark = pytest.mark.trains
SIZES = {"num_layers": 2, "d_model": 128, "d_ff": 256, "d_kv": 32}  # a gather takes as long for few blocks as for many
AHEAD, WHOLE = 200_000, 10_000  # to this model's parameters as a GPU's are to a large model's
BATCH = Batch(torch.full((2, 24), 8), torch.ones(2, 24, dtype=torch.long), torch.full((2, 4), 8))
TIMES = 6


@contextmanager
def watched(model: PromptedModel, counts: Counter[str]) -> Iterator[None]:
    """Within, count what DeepSpeed does.

    `gathers`: messages; `uses` of weights that are shared out, and `waits` for those of them that were not asked for
    before; `highest`: the most such parameters that were there at once; `traced`: modules of the longest trace.
    """
    from deepspeed.runtime.zero import partition_parameters
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    gather, fetch = partition_parameters._dist_allgather_fn, Coordinator.fetch_sub_module
    weights: list[Any] = [weight for weight in model.body.parameters() if not weight.ds_persist]

    def is_there(weight: Any) -> bool:
        return weight.ds_status.name != "NOT_AVAILABLE"

    def counting_gather(*args: Any, **more: Any) -> Any:
        counts["gathers"] += 1
        return gather(*args, **more)

    def counting_fetch(self: Any, module: Any, forward: bool) -> None:
        wanted: list[Any] = [weight for weight in module.parameters(recurse=False) if not weight.ds_persist]
        counts["uses"] += len(wanted)
        counts["waits"] += sum(not is_there(weight) for weight in wanted)
        fetch(self, module, forward)
        counts["highest"] = max(counts["highest"], sum(weight.ds_numel for weight in weights if is_there(weight)))
        counts["traced"] = max(counts["traced"], len(self._PartitionedParameterCoordinator__submodule_order))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition_parameters, "_dist_allgather_fn", counting_gather)
        patch.setattr(Coordinator, "fetch_sub_module", counting_fetch)
        yield


def counted(model: PromptedModel, *calls: Callable[[PromptedModel], None]) -> Counter[str]:
    counts: Counter[str] = Counter()
    with watched(model, counts):
        for call in calls:
            call(model)
    return counts


def learn(model: PromptedModel, seen: list[Any]) -> None:
    """Loss and gradient; of several processes only the first has targets, as where there are too few examples."""
    loss = model(BATCH if distributed.is_main() else BATCH.unlabelled())
    (gradient,) = torch.autograd.grad(loss, list(model.prompt.parameters()))
    seen.append([loss.item(), gradient.tolist()])


def validate(model: PromptedModel, seen: list[Any]) -> None:
    """Of three lengths in turn, so that it ends in each of the ways in which a trace can be."""
    seen.append(model.generate(BATCH, max_new_tokens=3 + len(seen) % 3).tolist())


def in_parts(model: PromptedModel) -> list[Any]:
    """Loss, gradient and labels' log-probabilities of batches that differ in size among the processes."""
    batch = BATCH if distributed.is_main() else BATCH.rows([0])
    loss = model(batch)
    (gradient,) = torch.autograd.grad(loss, list(model.prompt.parameters()))
    return [
        loss.item(),
        gradient.tolist(),
        model.target_log_probs(batch, torch.tensor([[8, 9, 1], [10, 1, -100]])).tolist(),
    ]


def measure(words: list[str], result: Path) -> None:
    """Updates, validations with updates between them, and updates again: as on a CPU, and as on a GPU."""
    config, told = compose.load(words), {}
    device = open_device(config.engine)
    with distributed.joined(config.engine, device):
        backbone = open_backbone(config.model)
        start = torch.randn(5, backbone.config.d_model, generator=torch.Generator().manual_seed(0))
        for name, ahead, whole, times in (("CPU", 0, engines.KEPT_WHOLE, 6), ("GPU", AHEAD, WHOLE, 4)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(engines, "fetched_ahead", {device.type: ahead}.__getitem__)
                patch.setattr(engines, "KEPT_WHOLE", whole)
                engine = Engine(with_precision(config.engine, backbone.sizes.width), device)
                learned, said = [], []
                update, validation = partial(learn, seen=learned), partial(validate, seen=said)
                with opened(backbone, everything(backbone.shape), engine, SoftPrompt(start)) as model:
                    first = [counted(model, update) for _ in range(TIMES)]
                    between = [counted(model, validation, update, update) for _ in range(times)]
                    last = [counted(model, update) for _ in range(TIMES)]
                    parts = []
                    for at_once in (1024, 3):
                        patch.setattr("fpt.prompts.prompted.LOGITS_AT_ONCE", at_once)
                        parts.append(in_parts(model))
                    model.answer(BATCH, max_new_tokens=3)  # ends amid what is gathered ahead
                    largest = max(weight.ds_numel for weight in model.body.parameters())
                told[name] = {"first": first, "between": between, "last": last, "largest": largest}
                told[name] |= {"learned": learned, "said": said, "parts": parts}
        if distributed.is_main():
            result.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes have seen, on a CPU and as on a GPU."""
    folder = tmp_path_factory.mktemp("gathering")
    model = save_checkpoint(folder / "model", "T5 1.0", sizes=SIZES)
    words = ["task=boolq", f"model={model}", "engine=deepspeed", f"run.dir={folder / 'run'}"]
    in_processes(2, partial(measure, words, folder / "told.json"), folder / "processes")
    return json.loads((folder / "told.json").read_text())


def test_on_a_cpu_only_what_is_shared_out_is_gathered(told: dict[str, Any]) -> None:
    """The embedding for each stack, the head both ways; norms, FFNs and attention of a model this small stay whole."""
    settled = [counts["gathers"] for counts in (*told["CPU"]["first"][2:], *told["CPU"]["last"][3:])]
    assert settled == [4] * len(settled)


def test_logits_in_unlike_numbers_of_parts_do_not_part_the_processes(told: dict[str, Any]) -> None:
    """Or one would wait in the head for the others, which are past it."""
    for whole, parted in zip(*told["CPU"]["parts"], strict=True):
        torch.testing.assert_close(torch.tensor(parted), torch.tensor(whole), rtol=1e-4, atol=1e-5)


def test_what_a_gpu_needs_is_mostly_there_before(told: dict[str, Any]) -> None:
    for counts in (*told["GPU"]["first"][2:], *told["GPU"]["last"][3:]):
        assert counts["uses"] > 50
        assert counts["waits"] < 0.1 * counts["uses"]


def test_no_more_is_gathered_than_is_planned_for(told: dict[str, Any]) -> None:
    """`Memory.weights` counts so much ahead, and the largest; generation stays below it too."""
    for name, ahead in (("CPU", 0), ("GPU", AHEAD)):
        passes = [*told[name]["first"], *told[name]["between"], *told[name]["last"]]
        assert all(counts["highest"] <= ahead + told[name]["largest"] for counts in passes)


def test_a_trace_never_holds_more_than_a_pass(told: dict[str, Any]) -> None:
    """Over six validations, and four as on a GPU, however they end."""
    for counts in told.values():
        longest = counts["first"][-1]["traced"]
        assert all(counts["traced"] <= longest for counts in counts["between"])


def test_what_is_computed_does_not_depend_on_it(told: dict[str, Any]) -> None:
    """To the last bit: the first passes, in which nothing is gathered ahead, and all others."""
    wanted = told["CPU"]["learned"][0]
    assert all(found == wanted for counts in told.values() for found in counts["learned"])
    assert told["CPU"]["said"][:4] == told["GPU"]["said"]
