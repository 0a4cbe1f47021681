"""README.md is the first page of the site: a hook that mkdocs calls."""

import re
from pathlib import Path
from typing import Any


def on_files(files: Any, config: Any) -> Any:
    """Adds the page."""
    from mkdocs.structure.files import File

    readme = Path(config.config_file_path).parent / "README.md"
    files.append(File.generated(config, "index.md", content=relinked(readme.read_text(encoding="utf-8"))))
    return files


def relinked(text: str) -> str:
    """README.md's text, whose links to docs/ lead to the site's pages; links to other files become plain text."""
    return re.sub(r"\[([^\]]*)\]\((?!https?:|docs/)[^)]*\)", r"\1", text).replace("](docs/", "](")
