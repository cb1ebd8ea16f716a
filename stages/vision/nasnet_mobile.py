"""NASNet-A Mobile, "NASNet-A (4 @ 1056)" (Zoph, Vasudevan, Shlens & Le 2018, arXiv 1707.07012, section 3).

Tensors are named as in timm's ``nasnetalarge``, the sibling, and in the public port of the published weights,
so that such files load as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from stages.vision.headed import Headed
from stages.vision.nasnet_cells import NORMAL, REDUCTION, Block, Cell, norm

__all__ = ["NasnetMobile", "nasnet_a_mobile"]


class NasnetMobile(Headed):
    """The network, with timm's methods.

    Parameters
    ----------
    num_classes : int
        0 = without classifier.
    in_chans : int
        Channels of the input.
    global_pool : str
        timm's name of a pooling.
    drop_rate : float
        Dropout before the classifier; the paper uses none.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(in_chans, 32, 3, stride=2, bias=False), bn=norm(32))
        )
        self.cell_names: list[str] = []
        self._channels = [32, 32]
        width = 44
        self._add("cell_stem_0", width // 4, REDUCTION, adapt="as_is")
        self._add("cell_stem_1", width // 2, REDUCTION, adapt="shrink")
        for stage in range(3):
            if stage:
                self._add(f"reduction_cell_{stage - 1}", 2 * width, REDUCTION)
                width *= 2
            for i in range(4):
                # The numbers of the six cells a stage that the large sibling has.
                self._add(f"cell_{6 * stage + i}", width, NORMAL, adapt="project" if i else "shrink")
        self.add_head(self._channels[-1], num_classes, global_pool, drop_rate)

    def _add(self, name: str, width: int, blocks: tuple[Block, ...], **options: Any) -> None:
        """Append a cell behind the last two."""
        previous, current = self._channels[-2:]
        cell = Cell(current, previous, width, blocks, **options)
        self.add_module(name, cell)
        self.cell_names.append(name)
        self._channels.append(cell.outputs)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) -> (n, 1056, 7, 7)."""
        previous = current = self.conv0(x)
        for name in self.cell_names:
            previous, current = current, self.get_submodule(name)(current, previous)
        return functional.relu(current)


default_cfgs = generate_default_cfgs(
    {
        "nasnet_a_mobile.tf_in1k": {
            "url": "http://data.lip6.fr/cadene/pretrainedmodels/nasnetamobile-7e03cead.pth",
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 1000,
            "first_conv": "conv0.conv",
            "classifier": "last_linear",
        }
    }
)


@register_model
def nasnet_a_mobile(pretrained: bool = False, **kwargs: Any) -> NasnetMobile:
    """Build NASNet-A Mobile as ``timm.create_model`` does."""
    return build_model_with_cfg(NasnetMobile, "nasnet_a_mobile", pretrained, **kwargs)
