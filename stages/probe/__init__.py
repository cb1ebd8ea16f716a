"""Linear probes: the regularisation path, its certificate, selection, and the fitted probe on disk."""

from stages.probe.certificate import Certificate, certify
from stages.probe.path import default_lambdas, fit_path
from stages.probe.saved import SavedProbe, load_probe, probe_bytes
from stages.probe.select import fit_probe, select_lambda

__all__ = [
    "Certificate",
    "SavedProbe",
    "certify",
    "default_lambdas",
    "fit_path",
    "fit_probe",
    "load_probe",
    "probe_bytes",
    "select_lambda",
]
