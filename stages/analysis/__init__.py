"""What can be read off cached features and results without a network: no torch, nothing is fitted for long.

Read-outs and scores of one backbone on one data set: `read_out`, `transferability`, judged by `rank_agreement`.
Images that stand twice: `near_duplicates`, `same_pictures`, tried on `made_copies`. Maps: `tsne_maps`.
The paper's other experiments: `draw_subsets` and `crossing` (few examples), `reached` and `speed_up` (convergence).
"""

from stages.analysis.class_means import nearest_class_mean
from stages.analysis.convergence import MeanReached, Reached, SpeedUp, mean_reached, reached, speed_up
from stages.analysis.crossings import Crossing, crossing
from stages.analysis.duplicates import Pairs, near_duplicates, rows_without
from stages.analysis.few_examples import Subset, doublings, draw_subsets
from stages.analysis.made_pairs import Detection, MadeCopy, detection, made_copies
from stages.analysis.neighbours import k_nearest_neighbours
from stages.analysis.ranking import Ranking, rank_agreement
from stages.analysis.readouts import read_out, together
from stages.analysis.ridge_regression import ridge
from stages.analysis.same_picture import SAME_PICTURE, same_pictures
from stages.analysis.selection import Candidate, ReadOut, folds_of
from stages.analysis.transfer_scores import TransferabilityScore, transferability
from stages.analysis.tsne import Map, Maps, choose_classes, tsne_maps

__all__ = [
    "SAME_PICTURE",
    "Candidate",
    "Crossing",
    "Detection",
    "MadeCopy",
    "Map",
    "Maps",
    "MeanReached",
    "Pairs",
    "Ranking",
    "Reached",
    "ReadOut",
    "SpeedUp",
    "Subset",
    "TransferabilityScore",
    "choose_classes",
    "crossing",
    "detection",
    "doublings",
    "draw_subsets",
    "folds_of",
    "k_nearest_neighbours",
    "made_copies",
    "mean_reached",
    "near_duplicates",
    "nearest_class_mean",
    "rank_agreement",
    "reached",
    "read_out",
    "ridge",
    "rows_without",
    "same_pictures",
    "speed_up",
    "together",
    "transferability",
    "tsne_maps",
]
