"""The first hour on a card, as a command: `python -m bench.accept` (`make accept`), 45 minutes at most on one GPU.

Every step prints a line of JSON when it ends, and an error is a line too, so that whatever stops it leaves what was
found. Where there is no CUDA device every step that can runs in small on the CPU, and its line says `"device": "cpu"`:
those numbers say that the script works, nothing about a card. Models have random weights, made on the device.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from fpt.runs.progress import quiet_libraries

quiet_libraries()

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from bench.kernels import attention, started, variants  # noqa: E402
from bench.place import OPTIM, PRECISIONS, Found, Place, random_model, updater, updates  # noqa: E402
from bench.synthetic import LENGTHS, PROMPT, Lengths  # noqa: E402
from bench.trainer import PeftSide  # noqa: E402
from fpt.__main__ import main as fpt  # noqa: E402
from fpt.backbones import tiny  # noqa: E402
from fpt.backbones.family import num_inputs  # noqa: E402
from fpt.backbones.shapes import Shape, Stack  # noqa: E402
from fpt.config import compose  # noqa: E402
from fpt.config.schema import EngineConfig, PromptConfig  # noqa: E402
from fpt.data.batches import Share  # noqa: E402
from fpt.data.encoded import Batch, Encoded  # noqa: E402
from fpt.pricing.flops import price_of  # noqa: E402
from fpt.pricing.memory import need  # noqa: E402
from fpt.prompts.prompted import PromptedModel  # noqa: E402
from fpt.training.loop import step  # noqa: E402
from fpt.training.optimizer import make  # noqa: E402
from stages import schedule  # noqa: E402
from stages.planning.decide import plan_ahead  # noqa: E402

# Peak FLOP/s of dense matrix multiplication of an H100 or H200 (SXM), from NVIDIA's data sheet.
RATED = {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
# Model, gigabytes of a card, packing: what a plan's settings are held to.
HELD_TO = (
    ("t5-large", 24, "none"),
    ("t5-xl", 24, "none"),
    ("t5-xl", 40, "none"),
    ("t5-xxl", 24, "nf4"),
    ("t5-xxl", 24, "int8"),
    ("t5-xxl", 40, "int8"),
    ("t5-xxl", 40, "none"),
    ("t5-xxl", 80, "none"),
)

# Steps ----------------------------------------------------------------------------------------------------------------


def environment(place: Place) -> Found:
    """What this is."""
    if not place.is_card:
        return {"torch": torch.__version__}
    card = torch.cuda.get_device_properties(0)
    is_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {"torch": torch.__version__, "card": card.name, "memory": card.total_memory, "bfloat16": is_bf16}


def start_and_resume(place: Place) -> Found:
    """Seconds from the command to the first update; a run that is stopped and goes on ends as one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["task=boolq", "schedule=cr", "train.updates=40", "train.eval_every=40", "task.valid_examples=20"]
        words += ["train.save_every=1", f"engine.device={place.device.type}"]
        run([*words, f"run.dir={folder}/whole"])
        metrics, start = Path(folder, "parts/metrics.jsonl"), time.perf_counter()
        command = [sys.executable, "-m", "fpt", "train", *words, f"run.dir={folder}/parts"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stopped:
            seconds = _lines(metrics, 1, start, stopped)
            _lines(metrics, 9, start, stopped)
            stopped.send_signal(signal.SIGTERM)
        done = len(metrics.read_text().splitlines())
        run([*words, f"run.dir={folder}/parts", "resume=must"])
        prompts = [load_file(f"{folder}/{name}/prompt.safetensors")["prompt"] for name in ("whole", "parts")]
    return {"seconds_to_first_update": seconds, "stopped_after": done, "same_prompt": torch.equal(*prompts)}


def _lines(file: Path, count: int, start: float, process: "subprocess.Popen[bytes]") -> float:
    """Wait for so many lines; the seconds since the start."""
    while not file.exists() or len(file.read_text().splitlines()) < count:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with status {process.returncode} before it was stopped")
        time.sleep(0.005)
    return time.perf_counter() - start


def speed(place: Place) -> Iterator[Found]:
    """Updates of whole models in every precision."""
    data = place.examples(LENGTHS["boolq"], 32)
    size = 32 if place.is_card else 4
    for name, shape in place.models.items():
        for precision, (dtype, products) in PRECISIONS.items():
            torch.set_float32_matmul_precision(products)
            model = random_model(place, name, shape, dtype)
            place.peak()
            yield {"model": name, "precision": precision, **_speed_of(place, model, data, size, precision)}
            del model
    torch.set_float32_matmul_precision("highest")


def _speed_of(place: Place, model: PromptedModel, data: Encoded, size: int, precision: str) -> Found:
    micro_batch, seconds = size, None
    while seconds is None:
        try:
            seconds = updates(place, model, data, size, micro_batch)
        except torch.OutOfMemoryError:
            if micro_batch == 1:
                raise
            micro_batch //= 2
    tokens, peak_bytes = sum(sum(data.lengths[index]) for index in range(size)), place.peak()
    flops = _flops(model, data, size, micro_batch)
    peak = RATED.get(precision) if place.is_card and re.search(r"\bH[12]00\b(?! PCIe| NVL)", _card()) else None
    return {
        "micro_batch": micro_batch,
        "seconds_per_update": seconds,
        "tokens_per_second": tokens / seconds,
        "flops_per_second": flops / seconds,
        "share_of_peak": peak and flops / seconds / peak,
        "peak_bytes": peak_bytes,
        **_peft(place, model, data, size, micro_batch),
    }


def _peft(place: Place, model: PromptedModel, data: Encoded, size: int, micro_batch: int) -> Found:
    """The same examples through the same frozen model in PEFT's hands, and transformers' Trainer's."""
    batches = [list(range(start, min(start + micro_batch, size))) for start in range(0, size, micro_batch)]
    seconds = None
    try:
        side = PeftSide(
            model.body,
            model.prompt.learned()["prompt"],
            batch_size=micro_batch,
            optim=OPTIM,
            padded=False,
            on_cpu=not place.is_card,
        )
        side.seconds(data, batches)
        seconds = side.seconds(data, batches)
    except torch.OutOfMemoryError:  # where ours has room, theirs may not
        pass
    return {"peft_seconds_per_update": seconds, "peft_peak_bytes": place.peak()}


def _card() -> str:
    name = torch.cuda.get_device_name()
    return "H100" if "H200" in name else name


def _shape(model: PromptedModel) -> Shape:
    layers = [model.family.activations_of(model.body, name) for name in model.family.row.stacks]
    return Shape(*(Stack(len(found), num_inputs(found[0])) for found in layers))


def _flops(model: PromptedModel, data: Encoded, size: int, micro_batch: int) -> int:
    cost, total = price_of(model.body.config), 0
    for start in range(0, size, micro_batch):
        batch, source, target = data.padded_size(range(start, min(start + micro_batch, size)))
        total += batch * cost.update(_shape(model), source=source + PROMPT, target=target)
    return total


def parts(place: Place) -> Iterator[Found]:
    """Updates on each stage of the schedules beside the whole model's: are the FLOPs that are saved seconds?"""
    data = place.examples(LENGTHS["boolq"], 32)
    size = 32 if place.is_card else 4
    dtype = torch.bfloat16 if place.is_card else torch.float32
    for name in place.models:
        whole: dict[str, float] = {}
        for planned in ("ld", "fr", "cr") if place.is_card else ("cr",):
            stages = schedule.of(compose.load([f"model={name}", "task=xsum", f"schedule={planned}"]))
            for stage in stages.stages[::-1]:
                if whole and stage.shape == stages.full:
                    continue
                model = random_model(place, name, stage.shape, dtype)
                found = {"seconds": updates(place, model, data, size), "flops": _flops(model, data, size, size)}
                del model
                whole = whole or found
                ratios = {f"{key}_of_whole": found[key] / whole[key] for key in found}
                yield {"model": name, "schedule": planned, "stage": stage.name, **found, **ratios}


def cards(place: Place) -> Iterator[Found]:
    """The settings that are planned for cards of several sizes, in as much memory as these have and no more."""
    if not place.is_card:
        yield {"held_to": None}
        return
    for name, size, quantize in HELD_TO:
        words = [f"model={name}", "task=boolq", "schedule=pt", f"engine.device_memory={size}GB", "engine.device=cuda"]
        config = compose.load([*words, "engine=torch", f"engine.quantize={quantize}"])
        plan = plan_ahead(config, schedule.of(config))
        found: Found = {"model": name, "quantize": quantize, "held_to": size * 10**9, "planned_fits": plan.fits}
        if not plan.fits:
            yield found
            continue
        model = random_model(place, name, None, torch.bfloat16, quantize)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, size * 10**9 / torch.cuda.get_device_properties(0).total_memory)
        )
        if plan.activation_checkpointing:
            model.family.checkpoint_blocks(model.body)
        place.peak()
        longest = config.task.source_length, config.task.target_length
        data = place.examples(Lengths(longest[0], longest[0], target=(longest[1], longest[1])), config.train.batch_size)
        try:
            graphs = quantize == "none" and not plan.activation_checkpointing
            seconds = updates(place, model, data, config.train.batch_size, plan.micro_batch, graphs=graphs)
            tokens = sum(map(sum, data.lengths)) / seconds
            found |= {"seconds_per_update": seconds, "tokens_per_second": tokens}
        except torch.OutOfMemoryError:
            found |= {"out_of_memory": True}
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        planned = {"checkpointing": plan.activation_checkpointing, "planned_bytes": plan.stages[-1].total}
        yield {**found, "micro_batch": plan.micro_batch, **planned, "peak_bytes": place.peak()}
        del model
        torch.cuda.empty_cache()


def whole_run(place: Place) -> Found:
    """A run of a model on disk, from the command on: where its time goes."""
    name, shape, dtype = "t5-large", None, torch.bfloat16
    if not place.is_card:
        name, shape, dtype = "t5-small", Shape(Stack(4, 64), Stack(4, 64)), torch.float32
    updates = 100 if place.is_card else 8
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder, "backbone")
        model = random_model(place, name, shape, dtype)
        model.body.save_pretrained(backbone)
        for tokens in ("spiece.model", "tokenizer_config.json"):
            shutil.copy(tiny.FOLDER / tokens, backbone)
        del model
        words = ["task=boolq", "task.data=world", f"model={backbone}", "schedule=cr", f"train.updates={updates}"]
        words += [f"train.eval_every={updates // 4}", f"engine.device={place.device.type}"]
        words += ["schedule.importance_examples=100", "task.valid_examples=200"]
        start = time.perf_counter()
        run([*words, f"run.dir={folder}/run"])
        seconds = time.perf_counter() - start
        result = json.loads(Path(folder, "run/result.json").read_text())
    found = {key: result[key] for key in ("seconds", "seconds_importance", "flops_importance", "flops", "stages")}
    return {"model": name, "seconds_from_command": seconds, **found}


def syncs(place: Place) -> Found:
    """How often updates wait for the device, one with its kernels started one by one, and one with graphs."""
    if not place.is_card:
        return {"waits_in_two_updates": None}
    import warnings

    model, data = random_model(place, "t5-small", None, torch.bfloat16), place.examples(LENGTHS["mnli"], 8)
    lines = []
    for graphs in (False, True):
        run = updater(place, model, data, 8, graphs=graphs)
        run()  # the optimizer makes its state, which is waited for
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        torch.cuda.set_sync_debug_mode("default")
        lines += [f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]
    return {"waits_in_two_updates": len(lines), "at": lines}


def memory(place: Place) -> Found:
    """The peak of updates of mixed lengths against the plan's."""
    name, shape = next(iter(place.models.items()))
    model = random_model(place, name, shape, torch.bfloat16)
    count, size = (200, 8) if place.is_card else (2, 2)
    data = place.examples(LENGTHS["boolq"], count)
    optimizer = make(model.prompt.parameters(), OPTIM)
    place.peak()
    for start in range(0, count, size):
        step(model, optimizer, Share.of(data, list(range(start, start + size))), OPTIM, place.device)
    source, target = (max(lengths) for lengths in zip(*data.lengths, strict=True))
    engine = EngineConfig(name="torch", device=place.device.type, dtype="bfloat16", graphs=False)
    sizes, prompt = (size, source + PROMPT, target), PromptConfig(length=PROMPT)
    needed = need(price_of(model.body.config), _shape(model), engine, sizes, prompt=prompt, checkpointing=False)
    return {"model": name, "planned_bytes": needed.total, "peak_bytes": place.peak()}


def gradients(place: Place) -> Found:
    """The prompt's gradient: in bfloat16 beside float32's, by the angle's cosine, and float32's beside a CPU's."""
    name, shape = next(iter(place.models.items()))
    data = place.examples(LENGTHS["mnli"], 4)
    model = random_model(place, name, shape, torch.float32)

    def gradient(device: torch.device) -> torch.Tensor:
        model.to(device).prompt.tensors["prompt"].grad = None
        model(data.batch(range(4)).to(device)).backward()
        found = model.prompt.tensors["prompt"].grad
        assert found is not None
        return found.cpu().flatten()

    there, here = gradient(place.device), gradient(torch.device("cpu"))
    model.body.to(torch.bfloat16)
    first, second = (gradient(place.device) for _ in range(2))
    cosine = torch.cosine_similarity(there, first, dim=0).item()
    away = ((there - here).norm() / here.norm()).item()
    return {"model": name, "cosine": cosine, "away_from_cpu": away, "same_again": torch.equal(first, second)}


def validation(place: Place) -> Found:
    """Outputs per second, beside an update's examples."""
    name, shape = next(iter(place.models.items()))
    model = random_model(place, name, shape, torch.bfloat16 if place.is_card else torch.float32)
    size, tokens = (128, 32) if place.is_card else (4, 4)
    data = place.examples(LENGTHS["xsum"], size)
    batch: Batch = data.batch(range(size)).to(place.device)
    answering = place.seconds(lambda: model.generate(batch, max_new_tokens=tokens), 2)
    training = updates(place, model, data, size, min(size, 16))
    found = {"outputs_per_second": size / answering, "examples_per_second": size / training}
    return {"model": name, "tokens": tokens, **found, "peak_bytes": place.peak()}


def engines(place: Place) -> Iterator[Found]:
    """DeepSpeed with one process against torch: the same prompt, to rounding."""
    kinds = {
        "torch": ["engine=torch"],
        "deepspeed": ["engine=deepspeed"],
        "offload": ["engine=deepspeed", "engine.offload=cpu"],
    }
    with tempfile.TemporaryDirectory() as folder:
        words = ["task=boolq", "schedule=pt", "train.updates=10", "train.eval_every=10", "task.valid_examples=20"]
        words += [
            "engine.dtype=float32",
            "optim.lr=0.01",
            f"engine.device={place.device.type}",
        ]
        prompts = {}
        for name, engine in kinds.items():
            start = time.perf_counter()
            run([*words, *engine, f"run.dir={folder}/{name.replace(' ', '-')}"])
            prompts[name] = load_file(f"{folder}/{name.replace(' ', '-')}/prompt.safetensors")["prompt"]
            away = (prompts[name] - prompts["torch"]).abs().max().item()
            yield {"engine": name, "seconds_of_run": time.perf_counter() - start, "away_from_torch": away}


def out_of_memory(place: Place) -> Found:
    """A run whose card is made too small for its batch goes on with less at once."""
    if not place.is_card:
        return {"forced": False}
    held = torch.cuda.memory_allocated() + 400 * 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, held / torch.cuda.get_device_properties(0).total_memory))
    try:
        with tempfile.TemporaryDirectory() as folder:
            words = ["task=boolq", "schedule=pt", "train.updates=3", "train.batch_size=1024", "train.micro_batch=1024"]
            words += ["train.eval_every=3", "task.valid_examples=20", f"run.dir={folder}/run", "engine=torch"]
            said = run([*words, "engine.dtype=float32"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {"forced": True, "halved": said.count("out of memory: from here on")}


def loading(place: Place) -> Found:
    """Seconds to build the embedded model's parts from its file."""
    from fpt.backbones.backbone import open_backbone
    from fpt.devices.engine import Engine
    from stages import partial, selection

    config = compose.load(["engine=torch", "engine.dtype=float32"])
    backbone, engine = open_backbone(config.model), Engine(config.engine, place.device)
    start = time.perf_counter()
    partial.build(backbone, selection.everything(backbone.shape), engine)
    place.wait()
    return {"seconds": time.perf_counter() - start}


STEPS: dict[str, Callable[[Place], Found | Iterator[Found]]] = {
    "environment": environment,
    "attention": attention,
    "graphs": started,
    "updates": speed,
    "variants": variants,
    "parts": parts,
    "memory": memory,
    "cards": cards,
    "gradients": gradients,
    "waits": syncs,
    "validation": validation,
    "loading": loading,
    "run": whole_run,
    "start and resume": start_and_resume,
    "engines": engines,
    "out of memory": out_of_memory,
}

# Running them ---------------------------------------------------------------------------------------------------------


def run(words: Sequence[str]) -> str:
    """`fpt train`, which has to end well; what it said."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        status = fpt(["train", *words])
    if status:
        raise RuntimeError(said.getvalue().splitlines()[-1])
    return said.getvalue()


@contextmanager
def told(name: str, place: Place) -> Iterator[Callable[[Found], None]]:
    """Within, what is found is printed at once; an error is a line too."""
    start = time.perf_counter()

    def say(found: Found) -> None:
        line = {"step": name, "device": str(place.device), "after": round(time.perf_counter() - start, 2), **found}
        print(json.dumps(line), flush=True)

    try:
        yield say
    except Exception as error:  # the steps after it are worth as much
        say({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
    if place.is_card:
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.accept", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--minutes", type=float, default=45, help="no step begins after these (default %(default)s)")
    options = parser.parse_args(arguments)
    place = Place(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    start, failures = time.monotonic(), 0
    for name in options.steps:
        if time.monotonic() - start > 60 * options.minutes:
            print(json.dumps({"step": name, "left_out": "no time"}), flush=True)
            continue
        with told(name, place) as say:
            failures += 1
            found = STEPS[name](place)
            for one in [found] if isinstance(found, dict) else found:
                say(one)
            failures -= 1
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
