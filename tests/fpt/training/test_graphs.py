"""Gradients that graphs add up are those of kernels started one by one; on a CPU what a graph does is run again."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fpt.backbones.family_table import FAMILY_TABLE
from fpt.config.schema import EngineConfig
from fpt.data.encoded import Encoded, RaggedRows
from fpt.devices.engine import Engine
from fpt.prompts.modules import Prompt, SoftPrompt, dropped_out
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.training import graphs
from fpt.training.graphs import Graphs, NoGraphError, Recorder, Replay, largest_batch
from fpt.training.loop import _add
from stages import partial as partial_plm
from stages.kept_states import states_below
from stages.selection import everything
from tests.conftest import open_folder
from tests.families import CASES, data_of, save_family
from tests.models import DATA, late

WIDTH, CPU = 32, torch.device("cpu")
IN_FLOAT32 = Engine(EngineConfig(name="torch", dtype="float32"), CPU)  # on a machine with a card, too
UPDATES = ([[0, 1], [2, 3]], [[1, 2, 3]], [[3, 0], [2]], [[2, 1], [0, 3]])  # of batches, some of one size


class Again:
    """Stands in for a card's recorder, whose graph is its function run again; it notes the sizes (B, S, T)."""

    def __init__(self) -> None:
        self.sizes = list[tuple[int, ...]]()

    def __call__(self, run: Replay) -> Replay:
        run()
        batch = run.__self__._batch  # type: ignore[attr-defined]
        self.sizes.append((*batch.source.shape, batch.labels.shape[1]))
        return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of a family's checkpoint."""
    return cache(lambda family: save_family(tmp_path_factory.mktemp("graphs") / family, family))


@pytest.fixture(params=["again", "card"])
def where(request: pytest.FixtureRequest) -> tuple[torch.device, Callable[[Replay], Replay]]:
    if request.param == "again":
        return CPU, Again()
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda"), Recorder(torch.device("cuda"))


def model_of(folder: Path, prompt: Prompt) -> PromptedModel:
    backbone = open_folder(folder)
    return prompted_model(partial_plm.build(backbone, everything(backbone.shape)), prompt)


def soft() -> SoftPrompt:
    return SoftPrompt(torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)))


def no_dropout(_: Any) -> None:
    """What it makes where there is none."""


Found = list[tuple[Tensor, list[Tensor]]]


def added_up(model: PromptedModel, data: Encoded, add: Any, factors: Any = no_dropout) -> Found:
    """The loss and the gradients of each update."""
    found = []
    for update in UPDATES:
        loss = torch.zeros(1, device=next(model.prompt.parameters()).device)
        for indices in update:
            add(replace(data.batch(indices), factors=factors(indices)), 7, loss)
        gradients = [parameter.grad for parameter in model.prompt.parameters()]
        found.append((loss.cpu(), [gradient.cpu().clone() for gradient in gradients if gradient is not None]))
        model.prompt.zero_grad()
    return found


def compare(found: Found, expected: Found) -> None:
    assert any(gradient.abs().max() > 1e-5 for gradient in expected[0][1])
    for (loss, gradients), (other, others) in zip(found, expected, strict=True):
        torch.testing.assert_close(loss, other, rtol=1e-5, atol=1e-5)
        for one, two in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 * two.abs().max().item() + 1e-9)


@pytest.mark.dear
@pytest.mark.parametrize(
    ("kind", "family"),
    [*(("soft", family) for family in CASES), *(("late", family) for family in ("mt5", "gpt2", "bert"))],
)
def test_they_are_those_of_kernels_started_one_by_one(
    family: str, folders: Callable[[str], Path], kind: str, where: Any
) -> None:
    """In every family; and the prompt is read where it is: a step between two updates counts."""
    device, record = where
    data, model = data_of(family), model_of(folders(family), soft() if kind == "soft" else late(2, generator="mppg"))
    model.to(device)
    graphed = Graphs(model, largest_batch(data, 3, no_dropout), record)
    if FAMILY_TABLE[family].asks_card and device != CPU:
        with pytest.raises(NoGraphError):
            added_up(model, data, graphed.add)
        return
    for _ in range(2):
        expected = added_up(model, data, partial(_add, model))
        compare(added_up(model, data, graphed.add), expected)
        with torch.no_grad():
            for parameter in model.prompt.parameters():
                parameter.mul_(1.5)


@pytest.mark.parametrize("family", ["mt5", "gpt2"])
def test_so_they_are_with_dropout_on_kept_states_and_of_weighted_examples(
    family: str, folders: Callable[[str], Path], where: Any
) -> None:
    device, record = where
    data, model = data_of(family), model_of(folders(family), late(2, generator="npg", dropout=0.5))
    kept = states_below(model, data, 2, IN_FLOAT32, lambda batches, _: batches)
    data = replace(data, below=kept, weights=np.array([3, 1, 0.5, 2], np.float32))
    model.to(device)
    dropout = partial(dropped_out, model.prompt, WIDTH, 0, update=0)
    expected = added_up(model, data, partial(_add, model), dropout)
    without = added_up(model, data, partial(_add, model))
    assert not torch.equal(expected[0][0], without[0][0])
    unweighted = added_up(model, replace(data, weights=None), partial(_add, model), dropout)
    assert not torch.equal(expected[0][0], unweighted[0][0])
    compare(added_up(model, data, Graphs(model, largest_batch(data, 3, dropout), record).add, dropout), expected)


def test_there_is_one_for_every_size_of_batch_the_largest_first(folders: Callable[[str], Path]) -> None:
    model, record = model_of(folders("mt5"), soft()), Again()
    graphed = Graphs(model, largest_batch(DATA, 3, no_dropout), record)
    for _ in range(2):
        added_up(model, DATA, graphed.add)
    sizes = [DATA.padded_size(indices) for update in UPDATES for indices in update]
    assert record.sizes == [(3, 13, 5), *dict.fromkeys(size for size in sizes if size != (3, 13, 5))]


def test_more_sizes_than_are_worth_it_are_refused(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST", 3)
    model = model_of(folders("mt5"), soft())
    graphed = Graphs(model, largest_batch(DATA, 2, no_dropout), Again())
    for indices in ([0, 1], [2, 3], [0, 1]):
        graphed.add(DATA.batch(indices), 7, torch.zeros(1))
    assert len(graphed._graphs) == 3
    with pytest.raises(NoGraphError, match="batches are of more than 3 sizes"):
        graphed.add(DATA.batch([3]), 7, torch.zeros(1))


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_no_batch_is_larger_than_the_largest(folders: Callable[[str], Path], at_once: int) -> None:
    """Also where the longest source, the longest target and the longest of both are three examples."""
    data = Encoded(RaggedRows.of([[5] * 9, [5] * 2, [5] * 8, [5]]), RaggedRows.of([[6], [6] * 7, [6] * 6, [6]]))
    model = model_of(folders("gpt2"), late(2, generator="npg"))
    kept = states_below(model, data, 2, IN_FLOAT32, lambda batches, _: batches)
    largest = largest_batch(replace(data, below=kept), at_once, no_dropout)
    for indices in product(range(4), repeat=at_once):
        batch = replace(data, below=kept).batch(list(indices))
        for name in ("source", "labels", "below"):
            assert getattr(batch, name).numel() <= getattr(largest, name).numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_model_that_asks_the_card_something_has_none_and_the_card_goes_on(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    model = model_of(folders("mt5"), soft()).to(device)
    graphed = Graphs(model, largest_batch(DATA, 3, no_dropout), Recorder(device))
    with monkeypatch.context() as patch:
        patch.setattr(
            PromptedModel,
            "forward",
            lambda model, batch: model.prompt.tensors["prompt"].sum() * batch.mask.sum().item(),
        )
        with pytest.raises(NoGraphError):
            graphed.add(DATA.batch([0, 1]), 7, torch.zeros(1, device=device))
    expected = added_up(model, DATA, partial(_add, model))  # the card goes on
    compare(added_up(model, DATA, Graphs(model, largest_batch(DATA, 3, no_dropout), Recorder(device)).add), expected)
