"""README.md is the first page of the site: a hook that mkdocs calls."""

import re
from pathlib import Path
from typing import Any


def on_files(files: Any, config: Any) -> Any:
    """Adds the page; links to docs/ lead to the site's own pages, and links to other files become plain text."""
    from mkdocs.structure.files import File

    text = (Path(config.config_file_path).parent / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\[([^\]]*)\]\((?!https?:|docs/)[^)]*\)", r"\1", text).replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files
