"""Where the page's files lie: in the wheel inside the package, in a checkout beside it."""

from __future__ import annotations

from pathlib import Path

from calliope.errors import ConfigError


def static_dir() -> Path:
    """The folder with ``index.html``. ConfigError when the installation lacks it."""
    package = Path(__file__).absolute().parent
    for folder in (package / "static", package.parent / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise ConfigError(
        f"The page is missing: there is no static/index.html in {package} or {package.parent};"
        " install Calliope again."
    )
