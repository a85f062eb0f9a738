"""The families of timm: into how many stages they fall, and whether they divide at half of these, or why not."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from autotl.errors import BackboneError
from autotl.models.backbone import create
from autotl.models.partition import DoesNotDivide, divide
from autotl.models.stages import stage_of_parameters

FAMILIES = [
    # An architecture, its stages, and why it does not divide; "" where it does.
    ("caformer_s18", 6, ""),
    ("poolformer_s12", 6, ""),
    ("rdnet_tiny", 6, ""),
    ("csatv2", 6, ""),
    ("cait_xxs24_224", 25, ""),
    ("coat_lite_tiny", 12, ""),
    ("convit_tiny", 13, ""),
    ("crossvit_tiny_240", 4, "blocks.1 takes more of an image than one tensor"),
    ("cspresnet50", 5, ""),
    ("davit_tiny", 6, ""),
    ("deit_tiny_patch16_224", 13, ""),
    ("densenet121", 6, ""),
    ("dla34", 7, ""),
    ("dpn48b", 5, ""),
    ("edgenext_xx_small", 6, ""),
    ("efficientformer_l1", 5, ""),
    ("efficientformerv2_s0", 5, ""),
    ("efficientvit_b0", 6, ""),
    ("efficientvit_m0", 5, ""),
    ("fastvit_t8", 6, ""),
    ("hgnetv2_b0", 6, ""),
    ("inception_next_atto", 6, ""),
    ("levit_128s", 5, ""),
    ("mambaout_femto", 6, ""),
    ("mobilenetv3_small_050", 8, ""),
    ("mobilenetv4_conv_small_035", 7, ""),
    ("mobilevit_xxs", 6, ""),
    ("mvitv2_tiny", 5, "patch_embed returns tuple, not a tensor"),
    ("nfnet_l0", 5, ""),
    ("pvt_v2_b0", 5, ""),
    ("regnetx_002", 5, ""),
    ("repvit_m0_9", 6, ""),
    ("resnet10t", 5, ""),
    ("rexnetr_100", 18, ""),
    ("shvit_s1", 5, ""),
    ("starnet_s050", 5, ""),
    ("swinv2_cr_tiny_224", 5, ""),
    ("tiny_vit_5m_224", 6, ""),
    ("twins_pcpvt_small", 5, "patch_embeds.0 returns tuple, not a tensor"),
    ("visformer_tiny", 16, "modules run on both sides of the boundary: pos_drop"),
    ("vovnet39a", 5, ""),
    ("xcit_nano_12_p16_224", 15, "patch_embed returns tuple, not a tensor"),
    ("eva02_tiny_patch14_224", 14, ""),
    ("vit_small_patch16_dinov3", 13, ""),
    ("vit_tiny_patch16_224", 13, ""),
    ("convnext_atto", 6, ""),
    ("swin_tiny_patch4_window7_224", 6, ""),
]


@pytest.mark.parametrize(("name", "n_stages", "reason"), FAMILIES, ids=[name for name, _, _ in FAMILIES])
def test_a_family_falls_into_stages_and_takes_a_new_head(name: str, n_stages: int, reason: str) -> None:
    torch.manual_seed(0)
    backbone = create(name, 3, None)
    assert backbone.n_stages == n_stages
    assert None in backbone.stage_of.values()
    side, depth = backbone.preprocessing.input_size, n_stages // 2
    images = torch.rand(2, 3, side, side)
    if reason:
        with pytest.raises(DoesNotDivide) as caught:
            divide(backbone, depth, images)
        assert str(caught.value) == reason
        return
    partition = divide(backbone, depth, images)  # compares the parts with the whole
    with torch.inference_mode():
        assert partition.suffix(partition.prefix(images)).shape == (2, 3)


class Unknown(torch.nn.Module):
    """Neither groups nor feature stages."""

    pretrained_cfg: ClassVar = {"classifier": "head"}

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


def test_an_architecture_without_groups_and_feature_stages_is_refused_by_name() -> None:
    with pytest.raises(BackboneError, match="Unknown: timm says neither how the parameters"):
        stage_of_parameters(Unknown())


class Staged(Unknown):
    """Feature stages, and parameters before, between and behind them."""

    feature_info = ({"module": "first"}, {"module": "second"})

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        for name in ("stem", "first", "between", "second", "norm", "head"):
            setattr(self, name, torch.nn.Linear(2, 2, bias=False))


def test_without_groups_the_feature_stages_count_and_what_lies_around_them() -> None:
    assert stage_of_parameters(Staged()) == {
        "stem.weight": 0,
        "first.weight": 1,
        "between.weight": 1,
        "second.weight": 2,
        "norm.weight": 3,
        "head.weight": None,
    }
