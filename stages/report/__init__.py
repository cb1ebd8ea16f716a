"""Join, statistics, figures, page: from scores to an answer that people can show to others."""

from stages.report.join import join_scores
from stages.report.table import TransferTable

__all__ = ["TransferTable", "join_scores"]
