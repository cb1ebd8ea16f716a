"""Linear probes: folds, the regularisation path, selection."""

from stages.probe.path import default_lambdas, fit_path
from stages.probe.select import fit_probe

__all__ = ["default_lambdas", "fit_path", "fit_probe"]
