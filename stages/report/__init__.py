"""Join, statistics, figures, page: from scores to an answer that people can show to others."""

from stages.report.bundle import report_files
from stages.report.files import read_scores
from stages.report.join import join_scores
from stages.report.table import TransferTable

__all__ = ["TransferTable", "join_scores", "read_scores", "report_files"]
