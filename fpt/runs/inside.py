"""A path for a name that was read from a file: it stays in its folder, whatever the name is."""

from pathlib import Path, PurePosixPath

from fpt.errors import UserError

LONGEST = 255  # bytes of a file's name that file systems take


def inside(folder: Path, name: object, *, read_in: Path, links: bool = False) -> Path:
    """The file of that name below the folder; with `links` a link may lead elsewhere, where files are only read."""
    if not isinstance(name, str) or not name.isprintable() or not _stays(name):
        raise UserError(f"{read_in}: names {name!r:.100}, which is no file of that folder; nothing was touched")
    path = folder / name
    if not links and not _resolved(path).is_relative_to(folder.resolve()):
        raise UserError(f"{read_in}: names {name!r:.100}, which a link leads out of {folder}; nothing was touched")
    return path


def _stays(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"/", "//", ".."} & {*parts} and all(len(part.encode()) <= LONGEST for part in parts)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return Path("/")
