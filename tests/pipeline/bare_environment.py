"""A second environment that has what the base installation has and nothing more, built without a network.

The distributions that the project's own dependencies name, found among those that run the tests, are
linked into a fresh virtual environment, beside the project's three packages and its command.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "penultimate"
PACKAGES = ("cache", "pipeline", "stages")
ROOT = Path(__file__).parent.parent.parent
COMMAND = """#!{python}
import sys
from pipeline.cli import main
sys.exit(main())
"""


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Return the distributions that these need, themselves included, without any extra that is not asked for."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found and not wanted.extras:
            continue
        found[name] = distribution(wanted.name)
        waiting += _requirements(found[name], wanted.extras)
    return found


def _requirements(of: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    """Yield what a distribution requires here."""
    for line in of.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def build(folder: Path, *also: str) -> Path:
    """Build the environment and return its folder of programs.

    Parameters
    ----------
    folder : Path
        Does not exist yet.
    also : str
        Distributions to link besides: what an extra would bring.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / "bin"
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    for name, installed in needed([PROJECT, *also]).items():
        if name != PROJECT:
            _link(installed, site)
    for package in PACKAGES:
        (site / package).symlink_to(ROOT / package)
    about = site / f"{PROJECT}-{distribution(PROJECT).version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(distribution(PROJECT).metadata.as_string(), encoding="utf-8")
    command = programs / PROJECT
    command.write_text(COMMAND.format(python=programs / "python"), encoding="utf-8")
    command.chmod(0o755)
    return programs


def _link(installed: Distribution, site: Path) -> None:
    """Link the files of a distribution; a folder that several share is made and its files are linked."""
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}
    for top in tops:
        if not (site / top).exists():
            (site / top).symlink_to(str(installed.locate_file(top)))
