"""The typed configuration: every key, and what it may be."""

import math
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from fpt.errors import UserError, did_you_mean


def setting(help: str, default: Any = MISSING, **limits: Any) -> Any:
    """A field with its one-line help and the limits it checks: choices=, above=, least=, most=, folder_name=.

    With verbatim=True the value is taken as typed, braces and all. Of a prompt, only="late" is for that kind, or
    only={value: kind} such values of it are; and with learning=True it says how the prompt is learned, not what it is.
    """
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of settings that checks its own fields when it is made."""

    key: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            name = f"{self.key}.{item.name}".lstrip(".")
            _check_limits(name, getattr(self, item.name), dict(item.metadata))


def _check_limits(name: str, value: Any, limits: dict[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        allowed = ", ".join(limits["choices"])
        refused = limits.get("refused", {}).get(value)
        hint = f" {refused}" if refused else did_you_mean(value, limits["choices"])
        raise UserError(f"{name}={value}: allowed are {allowed}.{hint}")
    if isinstance(value, str) and limits.get("folder_name") and (not value or set(value) & set("/\\\0")):
        raise UserError(f"{name}='{value}': names a folder, so it cannot be empty or hold a slash")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: expected a finite number")
    if isinstance(value, str):
        return
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{name}={value}: must be greater than {limits['above']}")
    if "least" in limits and value < limits["least"]:
        raise UserError(f"{name}={value}: must be at least {limits['least']}")
    if "most" in limits and value > limits["most"]:
        raise UserError(f"{name}={value}: must be at most {limits['most']}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Group):
    """Which pre-trained model the prompt is for."""

    key: ClassVar[str] = "model"
    name: str = setting("name used for the run folder and in reports", folder_name=True)
    weights: str = setting("'embedded', a local folder, or a Hub id such as google/t5-large-lm-adapt")
    revision: str | None = setting("branch, tag or commit of a Hub id", None)
    config: dict[str, Any] | None = setting(
        "shape as in config.json, so that plans need no download; null: read config.json", None
    )


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Group):
    """Which data, how long, and whether the decoder is reduced with the encoder."""

    key: ClassVar[str] = "task"
    name: str = setting("name of the task", folder_name=True)
    data: str = setting(
        "'auto', 'world' (generated), 'hub', or a folder with the task's own files;"
        " auto: generated for the embedded model, else the Hub",
        "auto",
    )
    world: str | None = setting(
        "of generated data: 'plain' reading, or 'customs' of a land, whose rules only a prompt can hold; null: customs",
        None,
        choices=("plain", "customs"),
    )
    land: int | None = setting("of generated data: the number of the land whose customs hold; null: 0", None, least=0)
    valid_split: str = setting(
        "which of the task's validation sets; mnli: matched, mismatched, or both, whose scores are the two sets' mean",
        "validation",
    )
    test_split: str | None = setting(
        "the test split whose outputs are kept when the run ends, and scored where it has labels: test; mnli:"
        " test_matched or test_mismatched; null: none",
        None,
    )
    source_length: int = setting("longest source, in tokens with </s>, prompt not counted", 492, least=2)
    target_length: int = setting("longest target, in tokens with </s>", least=2)
    max_new_tokens: int | None = setting(
        "longest output, in tokens; null: the longest label, or twice as long as all but a hundredth of the training"
        " targets, at most task.target_length",
        None,
        least=1,
    )
    reduce_decoder: bool = setting("stages reduce the decoder too (the paper: not for short labels)")
    train_examples: int | None = setting(
        "only the first so many training examples; null: all (of generated ones 4,000)", None, least=1
    )
    valid_examples: int | None = setting(
        "only the first so many validation examples; null: all (of generated ones 500)", None, least=1
    )
    shots: int | None = setting(
        "train on a sample of so many examples per label (in all, where there are no labels), drawn with the seed",
        None,
        least=1,
    )
    protocol: str = setting(
        "of task.shots. per_label: so many of each label; the best prompt is chosen on the validation split, which its"
        " score is of too. lpt: so many in all, in proportion to the labels, chosen on task.valid_shots more of the"
        " training examples, and the validation split is the test (Liu et al. 2022)",
        "per_label",
        choices=("per_label", "lpt"),
    )
    valid_shots: int | None = setting(
        "task.protocol=lpt: so many training examples to validate on; null: 1,000, as published", None, least=1
    )
    sample_seed: int | None = setting(
        "seed of what task.shots draws; null: the run's. The published ones are 13, 21, 42, 87 and 100", None, least=0
    )
    template: str | None = setting(
        "the source's text with fields of the task's records, as in 'premise: {premise} hypothesis: {hypothesis}', or"
        " lpt: text and label words of Liu et al. 2022, for their tasks; null: the task's own",
        None,
        verbatim=True,
    )
    answer: str = setting(
        "generate: what the model says is read; score: of the task's labels the one whose words have the highest"
        " probability, in one pass, and never anything else. A masked model always scores",
        "generate",
        choices=("generate", "score"),
    )
    on_error: str = setting(
        "a record that cannot be used stops the run, or is skipped, counted and listed",
        "stop",
        choices=("stop", "skip"),
    )
    train: str | None = setting("task=files: JSONL, CSV, TSV or Parquet to train on", None)
    valid: str | None = setting("task=files: such a file to validate on; null: a part of the training file", None)
    test: str | None = setting("task=files: such a file to test on in the end; its records need no target", None)
    valid_share: float = setting(
        "where there is a training file alone (task=files without task.valid, mr's rt-polarity.all): the share of it"
        " for validation, drawn with the seed",
        0.1,
        above=0.0,
        most=0.5,
    )
    source: str | None = setting(
        "task=files: the source's text, as in 'question: {question} context: {passage}'", None, verbatim=True
    )
    target: str | None = setting("task=files: what to answer, as in '{answer}'", None, verbatim=True)
    spare: str | None = setting(
        "task=files: the field to cut where a source is too long; null: an example's longest", None
    )
    id: str | None = setting("task=files: the field that names an example; null: its place in the file", None)
    labels: dict[Any, Any] | None = setting(
        "task=files: the target's values and the label words they stand for, as in {0: no, 1: yes}, or [no, yes] where"
        " these are the values; else other words for a task's labels. One alone is task.labels.LABEL=word",
        None,
    )
    labels_file: str | None = setting(
        "a JSON file with task.labels, which are read from it when the command is typed", None
    )
    metric: str | None = setting(
        "the main metric, which chooses the best prompt. task=files: accuracy, f1, macro_f1 or matthews of labels;"
        " exact_match or f1 of words; pearson or spearman of numbers; rougeL, rouge1 or rouge2; null: accuracy with"
        " task.labels, else exact_match. Tasks with several: one of theirs, or mean, as of qqp's accuracy and F1; null:"
        " the first",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Group):
    """The partial PLMs to train on, in order."""

    key: ClassVar[str] = "schedule"
    name: str = setting("name used for the run folder and in reports", folder_name=True)
    stages: list[Any] = field(
        default_factory=list,
        metadata={
            "help": "list of {depth, width, share|updates}; depth and width: a count (6), a fraction (0.25), full,"
            " or {encoder: …, decoder: …}. schedule=FILE.yaml takes such a list from a file"
        },
    )
    reduce: str = setting(
        "stacks that depth and width reduce: both, encoder, or task (as task.reduce_decoder says)",
        "task",
        choices=("task", "encoder", "both"),
    )
    partial_end: bool = setting("allow a last stage that is not the full model", False)
    importance_examples: int = setting("training examples that score the FFN neurons", 1000, least=1)


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Group):
    """The prompt: what it is, where it enters and where it starts."""

    key: ClassVar[str] = "prompt"
    kind: str = setting(
        "soft: learned vectors before the embedded input; late: vectors before the states inside the stack that reads",
        "soft",
        choices=("soft", "late"),
    )
    length: int = setting("number of prompt vectors P", 20, least=1, most=10_000)
    init: str = setting(
        "uniform in ±1/sqrt(inputs), normal (vectors from N(0, 1)), vocab (sampled embeddings), labels (label words),"
        " text, file; auto: as published, normal for a late prompt without a generator, else uniform",
        "auto",
        choices=("auto", "uniform", "normal", "vocab", "labels", "text", "file"),
        only={"vocab": "soft", "labels": "soft", "text": "soft"},
        learning=True,
    )
    text: str | None = setting(
        "the words whose embeddings start the prompt, for prompt.init=text", None, only="soft", learning=True
    )
    file: str | None = setting(
        "what to start from, for prompt.init=file: a prompt.safetensors or the folder of a run; for a soft prompt also"
        " a .npy or the folder of a PEFT prompt adapter",
        None,
        learning=True,
    )
    layer: int | float = setting(
        "late: how many blocks lie below the prompt: a count (12), or a fraction of those that read the source (0.5)",
        0.5,
        least=0,
        only="late",
    )
    generator: str = setting(
        "late: what makes an example's vectors from its states: npg (one pooled state), appg or mppg (average or max"
        " pooling to prompt.length states), none (the same learned vectors for all)",
        "npg",
        choices=("npg", "appg", "mppg", "none"),
        only="late",
    )
    bottleneck: int = setting("late: width of the generator's hidden layer", 128, least=1, only="late")
    pool: str = setting(
        "late, npg: the state of the first or the last token, or all tokens' mean",
        "first",
        choices=("first", "last", "mean"),
        only="late",
    )
    dropout: float | None = setting(
        "late, in training: the share of the numbers in an example's vectors that are 0, drawn anew in every update;"
        " null: as published, 0.1 of what a generator makes, and none without one",
        None,
        least=0.0,
        most=0.9,
        only="late",
        learning=True,
    )
    cache: str = setting(
        "late: keep the states below the prompt, which never change, in every process's memory or in a file under"
        " cache_dir; auto: where a stage sees its examples more than once, and there is room",
        "auto",
        choices=("auto", "off", "memory", "disk"),
        only="late",
        learning=True,
    )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Group):
    """The prompt's optimizer, and its learning rate from update to update."""

    key: ClassVar[str] = "optim"
    name: str = setting(
        "adafactor (factored state, no parameter scaling) or adamw", "adafactor", choices=("adafactor", "adamw")
    )
    lr: float = setting("learning rate, the highest of all updates", 0.3, above=0.0)
    schedule: str = setting(
        "of the learning rate, after warm-up: constant, or linear down to 0 at the end of the run",
        "constant",
        choices=("constant", "linear"),
    )
    warmup: float = setting("share of the run's updates in which the learning rate rises", 0.0, least=0.0, most=1.0)
    weight_decay: float = setting("weight decay", 1e-5, least=0.0)
    clip: float = setting("largest norm of the prompt's gradient", 1.0, above=0.0)
    momentum: float | None = setting(
        "beta1: the share of a running mean over steps that stays at each, of which the rest is the new one; null: as"
        " published, none in adafactor, 0.9 in adamw",
        None,
        least=0.0,
        most=0.999,
    )
    average: float = setting(
        "score and keep a running mean in place of the prompt itself: the share of it that stays at each update, as 0.9"
        " (it begins with the prompt's start, and training goes on from the prompt); 0: no mean",
        0.0,
        least=0.0,
        most=0.999,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Group):
    """How long, how much at once, and how often to look."""

    key: ClassVar[str] = "train"
    updates: int = setting("optimizer updates over all stages", 30000, least=1)
    epochs: float | None = setting(
        "so often every training example, in place of train.updates, which follows from it when the data are read",
        None,
        above=0.0,
    )
    batch_size: int = setting("examples per update", 32, least=1)
    micro_batch: int | str | None = setting(
        "examples per forward pass of a process; auto: as many as fit into engine.device_memory; null: its whole share"
        " of the batch on a CPU, else auto. The gradient does not depend on it",
        None,
        least=1,
    )
    activation_checkpointing: bool | None = setting(
        "keep each block's input alone and compute the rest again on the way back: less memory, more time, the same"
        " result; null: on a card, where the largest stage fits with it alone",
        None,
    )
    eval_every: int = setting("updates between validations", 500, least=1)
    eval_examples: int | None = setting(
        "in training, validate on so many validation examples, drawn with the seed; all of them score the best prompt"
        " and the last one in the end; null: all, always",
        None,
        least=1,
    )
    eval_partial: bool = setting(
        "validate on partial models too: it decides nothing, as the best prompt is the full model's", False
    )
    eval_batch: int = setting("examples per batch of generation", 128, least=1)
    save_every: int = setting("updates between saved states", 50, least=1)
    score_untrained: bool = setting("score the initial prompt on the full model too, to compare", False)
    patience: int | None = setting(
        "stop after so many validations of the full model without a better score; null: never", None, least=1
    )


@dataclass(frozen=True, kw_only=True)
class RecycleConfig(Group):
    """What an expansion carries over besides the prompt."""

    key: ClassVar[str] = "recycle"
    optimizer: bool = setting("carry the optimizer's state over an expansion", True)


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Group):
    """Where the frozen model lives, and how many processes share the work."""

    key: ClassVar[str] = "engine"
    name: str = setting(
        "torch: a whole copy in every process; deepspeed: shared out between them, or kept off the device;"
        " auto: torch where it fits",
        "auto",
        choices=("auto", "torch", "deepspeed"),
    )
    device: str = setting("auto, cpu, cuda or cuda:N; auto: cuda where there is one", "auto")
    dtype: str = setting(
        "precision of the frozen model; the prompt is always float32; auto: bfloat16 on a CUDA device that computes in"
        " it, else float32",
        "auto",
        choices=("auto", "float32", "bfloat16"),
        refused={
            "float16": "T5 overflows in float16; bfloat16 is as small.",
            "fp16": "T5 overflows in float16; bfloat16 is as small.",
            "fp32": "Did you mean 'float32'?",
        },
    )
    quantize: str = setting(
        "with engine=torch, keep the linear layers of the frozen model's blocks in 8 bits (int8) or 4 (nf4): less"
        " memory, more time, a slightly lower score; needs fpt[quantize]",
        "none",
        choices=("none", "int8", "nf4"),
        refused={"int4": "Did you mean 'nf4'?", "fp4": "Did you mean 'nf4'?"},
    )
    graphs: bool = setting(
        "on CUDA with engine=torch, start an update's kernels together, as a CUDA graph for each size of batch; false:"
        " one by one, as with activation checkpointing and packed weights",
        True,
    )
    processes: int = setting("processes on each machine, one for each GPU; on a CPU they share its cores", 1, least=1)
    zero_stage: int = setting(
        "of engine=deepspeed, for the frozen model only: 3 shares its weights out; 0, 1 and 2 leave them whole,"
        " as what 1 and 2 share out a frozen model does not have",
        3,
        least=0,
        most=3,
    )
    offload: str = setting(
        "with zero_stage=3: keep each process's share of the weights off the device",
        "none",
        choices=("none", "cpu"),
        refused={"nvme": "Weights on a disk are not supported; engine.offload=cpu keeps them in the machine's memory."},
    )
    device_memory: str | None = setting("memory of one device, as in 24GiB; null: what this machine has", None)
    hostfile: str | None = setting(
        "DeepSpeed's hostfile, lines of 'host slots=N': start processes on all of these machines over ssh", None
    )
    nodes: int = setting("machines, each started with this command and its own engine.node_rank", 1, least=1)
    node_rank: int | None = setting("which of the machines this is, from 0", None, least=0)
    rendezvous: str | None = setting("where the machines meet: host:port of machine 0", None)
    timeout: int | None = setting(
        "seconds after which a process that does not answer is given up; null: 30 on a CPU, 600 on CUDA."
        " To start, all have 600 seconds or this, if it is more",
        None,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(Group):
    """Where the run is kept."""

    key: ClassVar[str] = "run"
    dir: str | None = setting("run folder; null: runs/<task>-<model>-<schedule>-s<seed>", None)
