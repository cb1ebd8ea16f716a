"""Join, statistics, figures, page: from scores to an answer that people can show to others."""

from stages.report.files import read_scores
from stages.report.join import join_scores
from stages.report.table import TransferTable
from stages.report.write import write_report

__all__ = ["TransferTable", "join_scores", "read_scores", "write_report"]
