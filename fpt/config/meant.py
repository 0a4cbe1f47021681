"""Suggests a key for a name that other trainers use, such as `learning_rate` for `optim.lr`."""

# Each key with other names for it, in lower case and with underscores; only the last part of a typed key is compared.
KEYS = {
    "task": ("dataset", "dataset_name", "data_set", "task_name"),
    "task.data": ("data_dir", "data_path", "dataset_path", "dataset_dir"),
    "task.train": ("train_file", "training_file"),
    "task.valid": ("valid_file", "validation_file", "eval_file", "dev", "dev_file", "validation"),
    "task.test": ("test_file",),
    "task.source_length": ("max_length", "max_seq_length", "max_source_length", "seq_length", "source_len"),
    "task.target_length": ("max_target_length", "target_len", "max_new_tokens"),
    "task.shots": ("few_shot", "k_shot", "k", "num_shots", "shot"),
    "task.train_examples": ("max_train_samples", "train_size"),
    "task.valid_examples": ("max_eval_samples", "max_valid_samples", "valid_size"),
    "model": ("model_name", "model_name_or_path", "model_path", "base_model", "checkpoint"),
    "prompt.length": ("num_virtual_tokens", "prompt_length", "prompt_len", "num_tokens", "tokens"),
    "optim.lr": ("learning_rate", "learningrate", "rate", "step_size", "max_lr"),
    "optim.name": ("optimizer", "optimiser"),
    "optim.schedule": ("lr_scheduler", "lr_scheduler_type", "scheduler", "lr_schedule"),
    "optim.warmup": ("warmup_ratio", "warmup_steps", "warm_up", "num_warmup_steps"),
    "optim.average": ("ema", "ema_decay", "ema_weight", "use_ema", "polyak", "swa"),
    "optim.momentum": ("beta1", "betas", "adam_beta1", "beta_1"),
    "optim.clip": ("max_grad_norm", "grad_clip", "gradient_clipping", "clip_grad_norm"),
    "train.batch_size": ("batch", "bs", "batchsize", "per_device_train_batch_size", "train_batch_size"),
    "train.updates": ("steps", "max_steps", "num_steps", "iterations", "max_iters", "iters", "num_updates"),
    "train.micro_batch": ("micro_batch_size", "gradient_accumulation_steps", "grad_accum", "accumulate"),
    "train.activation_checkpointing": ("gradient_checkpointing", "checkpointing"),
    "train.eval_every": ("eval_steps", "eval_interval", "val_check_interval", "valid_every", "eval_freq"),
    "train.eval_batch": ("eval_batch_size", "per_device_eval_batch_size", "valid_batch_size", "generation_batch"),
    "train.save_every": ("save_steps", "save_interval", "checkpoint_every"),
    "train.patience": ("early_stopping", "early_stopping_patience"),
    "engine.processes": ("gpus", "num_gpus", "n_gpus", "devices", "nproc", "nproc_per_node", "num_processes"),
    "engine.dtype": ("precision", "fp16", "bf16", "mixed_precision", "torch_dtype"),
    "train.epochs": ("epoch", "num_epochs", "max_epochs", "num_train_epochs", "n_epochs"),
    "run.dir": ("output_dir", "out_dir", "output", "out", "run_dir", "save_dir", "folder"),
    "tracking": ("report_to", "logger", "wandb", "tensorboard"),
    "seed": ("random_seed", "data_seed", "manual_seed"),
    "resume": ("resume_from_checkpoint", "overwrite", "overwrite_output_dir"),
}
SEVERAL_MACHINES = (
    "hostfile",
    "nodes",
    "nnodes",
    "num_nodes",
    "node_rank",
    "rendezvous",
    "rdzv_endpoint",
    "master_addr",
)
_KEY_OF = {name: key for key, names in KEYS.items() for name in names}


def hint(key: str) -> str:
    """The end of an error message that says what to write for an unknown key; empty if nothing is known."""
    name = key.rpartition(".")[2].lower().replace("-", "_")
    if name in SEVERAL_MACHINES:
        return " torchrun starts a run on several machines; docs/recipes.md shows how."
    return f" Did you mean '{_KEY_OF[name]}'?" if name in _KEY_OF else ""
