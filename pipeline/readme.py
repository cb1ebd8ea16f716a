"""Put the demo's table and figure into the README: ``python -m pipeline.readme``, run by `make readme`."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config import load_study
from pipeline.jobs import STAGES
from pipeline.progress import Reporter
from pipeline.run import run

START = "<!-- demo: written by `make readme` -->"
END = "<!-- /demo -->"
HOME = Path(__file__).parent
FIGURE = HOME / "studies" / "demo.png"


def main() -> None:
    """Run the demo where it is not current, and write its table and figure."""
    from stages.report.text import correlation_lines, score_table

    study = load_study(HOME / "studies" / "demo.toml").model_copy(update={"folder": Path.cwd()})
    outcome = run(study, STAGES, reporter=Reporter())
    if outcome.joined is None or outcome.failed:
        raise SystemExit("the demo did not finish: the README stays as it is")
    text = [score_table(outcome.joined.table), "", *correlation_lines(outcome.joined.statistics)]
    shutil.copyfile(study.output / "figures" / "transfer.png", FIGURE)
    figure = "![Transfer against ImageNet accuracy](pipeline/studies/demo.png)"
    block = "\n".join([START, "```", *text, "```", "", figure, END])
    readme = HOME.parent / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(before + block + after, encoding="utf-8")


if __name__ == "__main__":
    main()
