"""The report: one self-contained page about several runs, and its plots as PNG files in a folder beside it."""

import errno
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fpt.errors import UserError
from fpt.report.runs import ReportedRun, read
from fpt.runs.atomic import replace_file
from fpt.runs.run import open_run


def open_runs(places: Sequence[str]) -> list[ReportedRun]:
    """Open the runs in these folders; each is labelled by its name, or by its path if two have the same name."""
    if not places:
        raise UserError("fpt report: give the folders of one or more runs, as in fpt report runs/boolq-tiny-cr-s0")
    runs = [open_run(place) for place in places]
    ((path, times),) = Counter(run.path.resolve() for run in runs).most_common(1)
    if times > 1:
        raise UserError(f"{path}: is given twice")
    names = Counter(run.name for run in runs)
    labels = [run.name if names[run.name] == 1 else str(run.path) for run in runs]
    return [read(run, number, label) for number, (run, label) in enumerate(zip(runs, labels, strict=True), 1)]


def output_of(places: Sequence[str], output: str | None) -> Path:
    """Choose where the page goes: to `output`, else into the folder of a single run or next to the first of several.

    Its name must end in .html, so that no file of a run can be overwritten.
    """
    if output is None:
        first = Path(places[0]).expanduser()
        return (first if len(places) == 1 else first.resolve().parent) / "report.html"
    page = Path(output).expanduser()
    if page.suffix != ".html" or page.is_dir():
        raise UserError(f"output={output}: expected a file whose name ends in .html")
    return page


def write(runs: Sequence[ReportedRun], page: Path) -> list[Path]:
    """Write the page, and its plots into a folder next to it; returns all paths, the page's first."""
    from fpt.report.page import render  # imported here, so that errors do not wait for matplotlib

    folder = page.with_name(f"{page.stem}-plots")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        html, plots = render(runs)
        for plot in plots:
            replace_file(folder / f"{plot.name}.png", plot.png)
        replace_file(page, html.encode())
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()  # if it is empty
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(f"{page}: cannot be written ({error.strerror}); give another output=FILE.html") from None
    return [page, *(folder / f"{plot.name}.png" for plot in plots)]
