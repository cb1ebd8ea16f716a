"""Figures of analyses that were asked for by hand: kept in the study's output, shown in its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cache.atomic import make_folder, write_file

if TYPE_CHECKING:
    from stages.report.draw_experiments import ExtraFigure

FOLDER = "analysis"
_LONGEST = 60
"""Characters of a name; two of them and what stands beside them fit into a file's name."""


def safe_name(name: str) -> str:
    """Return a name as part of a file's name, another one for every name; most stay as they are.

    Examples
    --------
    >>> safe_name("pets"), safe_name("my pets")
    ('pets', 'my-pets-8d0df190')
    """
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:_LONGEST]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def keep(
    output: Path, stem: str, files: Mapping[str, bytes], figure: ExtraFigure | None = None
) -> tuple[Path, ...]:
    """Write an analysis into ``OUTPUT/analysis``; its figure is in the report from the next join on.

    Parameters
    ----------
    output : Path
        The study's.
    stem : str
        Of the names of all its files.
    files : mapping of str to bytes
        By extension.
    figure : ExtraFigure, optional
        Without one, the figure of an earlier run of the same analysis goes.

    Returns
    -------
    tuple of Path
        Where the files lie, the figure's last.
    """
    folder = output / FOLDER
    make_folder(folder)
    contents = {f"{stem}.{kind}": content for kind, content in files.items()}
    drawn = [f"{stem}.{kind}" for kind in ("figure.json", "pdf", "png")]
    if figure is None:
        for name in drawn:
            (folder / name).unlink(missing_ok=True)
    else:
        words = json.dumps({"title": figure.title, "caption": figure.caption}, indent=1).encode()
        contents |= dict(zip(drawn, (words, figure.pdf, figure.png), strict=True))
    for name, content in contents.items():
        write_file(folder / name, content)
    return tuple(folder / name for name in contents if not name.endswith(".figure.json"))


def kept(output: Path) -> tuple[ExtraFigure, ...]:
    """Return the figures that were kept and are whole, in the order of their names."""
    from stages.report.draw_experiments import ExtraFigure

    found = []
    for path in sorted((output / FOLDER).glob("*.figure.json")):
        stem = path.name.removesuffix(".figure.json")
        try:
            words = json.loads(path.read_text(encoding="utf-8"))
            pdf, png = ((path.parent / f"{stem}.{kind}").read_bytes() for kind in ("pdf", "png"))
            found.append(ExtraFigure(stem, str(words["title"]), str(words["caption"]), pdf, png))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # taken away or edited by hand: asked for again, it comes back
    return tuple(found)


def kept_digest(output: Path) -> list[str]:
    """Return a digest of each kept figure: the join is stale when they change."""
    return [hashlib.sha256(figure.png + figure.caption.encode()).hexdigest() for figure in kept(output)]
