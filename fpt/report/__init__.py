"""Runs as one page that opens anywhere, with its plots beside it."""

import errno
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fpt.errors import UserError
from fpt.report.runs import ReportedRun, read
from fpt.runs.atomic import replace_file
from fpt.runs.run import open_run


def open_runs(places: Sequence[str]) -> list[ReportedRun]:
    """The runs in these folders, named after them; by their whole path where two have one name.

    Raises:
        UserError: no folder, one that is not a run's, one given twice, or damaged records.
    """
    if not places:
        raise UserError("fpt report: give the folders of one or more runs, as in fpt report runs/boolq-tiny-cr-s0")
    found = [open_run(place) for place in places]
    times = Counter(records.path.resolve() for records in found)
    if twice := [path for path, number in times.items() if number > 1]:
        raise UserError(f"{twice[0]}: is given twice")
    names = Counter(records.name for records in found)
    return [
        read(records, number, records.name if names[records.name] == 1 else str(records.path))
        for number, records in enumerate(found, 1)
    ]


def output_of(places: Sequence[str], given: str | None) -> Path:
    """Where the page goes: as given, into the folder of a single run, or beside the first of several.

    Raises:
        UserError: the file's name does not end in .html, so that no record of a run can be overwritten.
    """
    if given is None:
        first = Path(places[0]).expanduser()
        return (first if len(places) == 1 else first.resolve().parent) / "report.html"
    page = Path(given).expanduser()
    if page.suffix != ".html" or page.is_dir():
        raise UserError(f"output={given}: expected a file whose name ends in .html")
    return page


def write(runs: Sequence[ReportedRun], page: Path) -> list[Path]:
    """Write the page and, into a folder beside it, its plots as PNG; returns the paths, the page's first.

    Raises:
        UserError: no file can be made there.
    """
    from fpt.report.page import render  # here, because an error must not wait for matplotlib

    folder = page.with_name(f"{page.stem}-plots")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        html, plots = render(runs)
        for plot in plots:
            replace_file(folder / f"{plot.name}.png", plot.png)
        replace_file(page, html.encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{page}: cannot be written ({error.strerror}); give another output=FILE.html") from None
    return [page, *(folder / f"{plot.name}.png" for plot in plots)]
