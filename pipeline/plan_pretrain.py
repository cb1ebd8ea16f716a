"""Planning of source-task training: every network of a study under every setting, from random initialisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.interrupted import training_state
from pipeline.jobs import Part, Planned, TrainJob
from pipeline.ledger import History
from pipeline.resolve import Images, Resolved, with_network
from pipeline.states import score_columns
from pipeline.tables_experiments import PretrainTable, SettingTable
from pipeline.training_recipe import train_recipe
from stages.backbones import lookup
from stages.paper_backbones import built_name
from stages.records import WITHOUT_EFFECT, Backbone, SourceSwitches, SplitName, TrainRecipe
from stages.train.auxiliary import auxiliary_places


def plan_pretrain(
    study: Study, table: PretrainTable, resolved: Resolved, history: History
) -> Iterator[Planned]:
    """Plan one training for each network, setting and seed, scored on the source's test split.

    Raises
    ------
    StudyError
        The source's images are not here, or the settings do not fit the source or the networks.
    """
    images = resolved.images.get(table.source)
    if images is None:
        raise StudyError(f"pretrain.source: {resolved.absent[table.source]}")
    mistakes = list(_mistakes(table, images, resolved))
    if mistakes:
        raise StudyError(mistakes)
    for backbone in with_network(resolved):
        for setting in settings_of(table, backbone):
            for seed in table.seeds:
                job = _job(study, table, backbone, setting, images, seed)
                state, why = training_state(job, history, study.output)
                part = Part("pretrain", steps=table.steps)
                yield Planned(job.name, "scratch", state, why, job, job.columns, part)


def settings_of(table: PretrainTable, backbone: Backbone) -> tuple[SettingTable, ...]:
    """Return the settings that differ for a network: one without auxiliary heads has no last one of the paper's."""
    kept: dict[tuple[object, ...], SettingTable] = {}
    for setting in table.setting:
        kept.setdefault(_what(setting, backbone), setting)
    return tuple(kept.values())


def variant_of(table: PretrainTable, setting: SettingTable, seed: int) -> str:
    """Return what tells the checkpoint apart: the setting, with the seed where there are several."""
    return setting.variant if len(table.seeds) == 1 else f"{setting.variant},seed={seed}"


def _has_heads(backbone: Backbone) -> bool:
    """Whether a network has auxiliary heads."""
    return bool(auxiliary_places(built_name(backbone.name)))


def _what(setting: SettingTable, backbone: Backbone) -> tuple[object, ...]:
    """Return what a setting does to a network."""
    auxiliary = setting.auxiliary_head and _has_heads(backbone)
    return setting.batch_norm_scale, setting.label_smoothing, setting.dropout, auxiliary


def _mistakes(table: PretrainTable, images: Images, resolved: Resolved) -> Iterator[str]:
    """Say what does not fit."""
    if images.dataset.multi_label and any(setting.label_smoothing for setting in table.setting):
        yield f"pretrain: label_smoothing means nothing for the multi-label set {table.source!r}: leave it out"
    for backbone in with_network(resolved):
        facts = lookup(backbone.name)
        if facts.fixed_size and table.image_size not in (None, facts.size):
            yield f"pretrain.image_size {table.image_size}: {facts.name} takes inputs of {facts.size} pixels only"
    names = [backbone.name for backbone in with_network(resolved)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"pretrain: the backbone {name!r} is listed twice; once is enough, its weights are drawn anew"


def _job(
    study: Study, table: PretrainTable, backbone: Backbone, setting: SettingTable, images: Images, seed: int
) -> TrainJob:
    """Put one training together."""
    recipe = TrainRecipe(
        **{name: getattr(table, name) for name in _SHARED},
        label_smoothing=setting.label_smoothing,
        dropout=setting.dropout,
        compile="never"
        if setting.auxiliary_head
        else "auto",  # hooks inside a compiled network are not heard
    )
    heads = setting.auxiliary_head and _has_heads(backbone)
    switches = SourceSwitches(setting.batch_norm_scale, heads, table.auxiliary_weight if heads else 0.4)
    splits = images.dataset.splits
    fit_on: tuple[SplitName, ...] = ("train", "validation") if "validation" in splits else ("train",)
    columns = score_columns(study, backbone, table.source, "from_scratch", seed=seed)
    variant = variant_of(table, setting, seed)
    return TrainJob(
        name=f"pretrain/{backbone.name}/{table.source}/{setting.variant},seed={seed}",
        regime="from_scratch",
        backbone=backbone,
        dataset=images.dataset,
        recipe=recipe,
        learning_rate=table.learning_rate,
        weight_decay=table.weight_decay,
        seed=seed,
        fit_on=fit_on,
        score_on="test",
        spec={
            "recipe": train_recipe(backbone.name, table.weight_decay),
            "backbone": {
                "name": backbone.name,
                "preprocessing": asdict(backbone.preprocessing),
                "pooling": backbone.pooling,
            },
            "metric": images.dataset.metric,
            "images": {name: images.digests[name] for name in splits},
            "training": {k: v for k, v in asdict(recipe).items() if k not in WITHOUT_EFFECT},
            "switches": asdict(switches),
            "learning_rate": table.learning_rate,
            "weight_decay": table.weight_decay,
            "seed": seed,
            "fit_on": list(fit_on),
        },
        columns={**columns, "weights": f"random:{seed}", "variant": variant, "imagenet_top1": None},
        checkpoint_minutes=table.checkpoint_minutes,
        keep_weights=True,
        jobs_per_device=table.jobs_per_device,
        switches=switches,
        image_sha256=images.by_file,
    )


_SHARED = (
    "steps", "batch_size", "micro_batch_size", "image_size", "crop_scale", "precision", "device", "num_workers",
    "image_memory",
)  # fmt: skip
