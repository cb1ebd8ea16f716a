"""Which networks have auxiliary classifier heads, and where; no torch."""

from __future__ import annotations

PLACES: dict[str, tuple[str, ...]] = {
    # Szegedy et al. 2015, figure 3: after the first and the fourth of the inner inception modules.
    "torchvision/googlenet": ("inception4a", "inception4d"),
    # Szegedy et al. 2016, "Rethinking the inception architecture", figure 8: on top of the last 17 x 17 layer.
    "torchvision/inception_v3": ("Mixed_6e",),
    "inception_v3": ("Mixed_6e",),
    # The same place, as the paper's own TF-Slim code has it: before the second reduction.
    "inception_v4": ("features.17",),
    "inception_resnet_v2": ("repeat_1",),
}
"""Architecture to the layers behind which a head reads."""


def auxiliary_places(name: str) -> tuple[str, ...]:
    """Return behind which layers a network's auxiliary heads read; none where it has none.

    Parameters
    ----------
    name : str
        As it is built: "torchvision/googlenet", a timm name with or without its tag.

    Examples
    --------
    >>> auxiliary_places("inception_v3.tv_in1k")
    ('Mixed_6e',)
    >>> auxiliary_places("resnet50")
    ()
    """
    return PLACES.get(name, PLACES.get(name.partition(".")[0], ()))
