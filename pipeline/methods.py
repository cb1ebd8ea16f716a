"""How a study's scores are come by, in sentences: the report's method section."""

from __future__ import annotations

from pipeline.budgets import grid_of, recipe_of
from pipeline.config import ProbeTable, Study, TrainTable

_SELECTION = {
    "cross_validation": "chosen by {folds}-fold stratified cross-validation over train + validation",
    "validation": "chosen on validation (the data set's own, else {share:.0%} of train held out)",
}
_SEARCH = {
    "grid": "chosen on validation",
    "halving": "chosen on validation by successive halving, the last round at full length",
}
_CROPS = {
    "whole": "the uncropped image, resized",
    "central_87.5": "the central 87.5 % of both sides, resized",
    "simclr": "the short side resized to size * 256/224, centre crop",
}


def methods(study: Study) -> dict[str, str]:
    """Return one sentence or two for each regime of a study, with the values that it used.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict of str to str
        By the regime's name as people read it.
    """
    told = {"linear probe": _probe(study.probe)} if study.probe.enabled else {}
    if study.fine_tune is not None:
        told["fine-tuned"] = _training(study.fine_tune, "fine_tune", "from the backbone's weights")
    if study.from_scratch is not None:
        told["from scratch"] = _training(study.from_scratch, "from_scratch", "from random initialisation")
    return told


def _probe(table: ProbeTable) -> str:
    """The linear probe."""
    chosen = _SELECTION[table.selection].format(folds=table.folds, share=table.validation_fraction)
    grid = table.lambdas
    return (
        "Penultimate features without augmentation; multinomial logistic regression (two classes or several "
        "labels: a sigmoid each) on the sum of losses plus lambda / 2 times the squared weights, bias free; "
        f"{grid.count} lambdas from {grid.min:g} to {grid.max:g}, {chosen}; refit on train + validation at "
        f"the chosen lambda, test scored once. Every fit is certified to {table.tolerance:g} by a duality gap "
        "computed in float64."
    )


def _training(table: TrainTable, regime: str, start: str) -> str:
    """A regime that trains."""
    recipe = recipe_of(table, regime)
    rates, decays = grid_of(table, regime)
    size = f"{recipe.image_size} pixels" if recipe.image_size else "the backbone's own size"
    extras = [
        f"dropout {recipe.dropout:g} before the classifier" if recipe.dropout else "no dropout",
        f"label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else "no label smoothing",
    ]
    batch_norm = (
        "min(10/s, 0.1), s = steps an epoch"
        if recipe.batch_norm_momentum is None
        else f"{recipe.batch_norm_momentum:g}"
    )
    return (
        f"Training {start} (budget {table.budget!r}): {recipe.steps} steps of SGD with Nesterov momentum "
        f"{recipe.momentum:g}, batch {recipe.batch_size}, cosine decay to zero, weight decay c divided by the "
        f"peak learning rate, {'on every parameter' if recipe.decay_everything else 'on weights only'}; "
        f"batch-norm momentum {batch_norm}; random resized crop to {size} keeping "
        f"{recipe.crop_scale[0]:g} to {recipe.crop_scale[1]:g} of the area"
        f"{', horizontal flip' if recipe.horizontal_flip else ', no flip'}; {', '.join(extras)}; precision "
        f"{recipe.precision}. Grid of {len(rates)} learning rates ({_span(rates)}) and {len(decays)} weight "
        f"decays c ({_span(decays)}), {_SEARCH[table.search]}, trained again on train + validation for seeds "
        f"{', '.join(map(str, table.seeds))}, test scored once on {_CROPS[recipe.evaluation_crop]}."
    )


def _span(values: tuple[float, ...]) -> str:
    """Smallest and largest of a grid."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
