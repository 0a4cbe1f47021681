"""The plan's FLOPs beside the paper's: T5-Large, averaged over its five tasks (Huang et al. 2022, Tables 1 and 2)."""

from rich.console import Console
from rich.table import Table

from fpt.config.compose import load
from fpt.runs.progress import quiet_libraries

TASKS = ("mnli", "qqp", "squad_v2", "record", "xsum")
PARTIAL = {"ld": (30, 54, 77), "fr": (58, 72, 86), "cr": (20, 40, 66)}  # Table 1: a fixed partial PLM, percent
SCHEDULE = {"pt": 100, "ld": 72, "fr": 83, "cr": 65}  # Table 2: the whole of FPT, percent


def ratios(preset: str) -> tuple[float, list[float]]:
    """Percent of vanilla prompt tuning's FLOPs that a schedule spends, and percent of an update by stage."""
    from fpt.backbones.backbone import family_of, read_config
    from fpt.backbones.location import config_values
    from fpt.pricing.flops import price_of
    from stages import schedule
    from stages.planning.costs import Costs, work_at_limits

    wholes, by_stage = [], []
    for task in TASKS:
        config = load([f"experiment=large-{preset}", f"task={task}"])
        plan, model = schedule.of(config), read_config(*config_values(config.model))
        work = work_at_limits(config, plan, family_of(model).row.reads, None)
        costs = Costs(plan, price_of(model), work, prompt=config.prompt)
        stages = [costs.stage(stage) for stage in plan.stages]
        spent = costs.scoring() + sum(stage["flops"] for stage in stages)
        wholes.append(spent / sum(stage["flops_full"] for stage in stages))
        by_stage.append([stage["flops_ratio"] for stage in stages])
    means = (sum(of_task) / len(TASKS) for of_task in zip(*by_stage, strict=True))
    return 100 * sum(wholes) / len(TASKS), [100 * mean for mean in means]


def main() -> None:
    """Print the table."""
    quiet_libraries()
    table = Table(box=None, pad_edge=False)
    for column in ("schedule", "all stages", "paper", "stage 1", "paper", "stage 2", "paper", "stage 3", "paper"):
        table.add_column(column, justify="right")
    for preset, paper in SCHEDULE.items():
        whole, stages = ratios(preset)
        pairs = zip(stages, PARTIAL.get(preset, ()), strict=False)
        cells = [cell for ours, theirs in pairs for cell in (f"{ours:.1f} %", f"{theirs} %")]
        table.add_row(preset, f"{whole:.1f} %", f"{paper} %", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
