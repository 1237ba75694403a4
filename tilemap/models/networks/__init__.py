"""Networks: plain torch on a ResNet or EfficientNet-Lite0 encoder, and those of other packages.

The encoders' parameters carry the names of well-known weights, see ``load_encoder_weights``.
Layers of our own networks commute with shifts by a multiple of the stride (nearest, or bilinear
without aligned corners, and no pooling over the whole patch unless the paper lives by it), so that
what a pixel gets does not depend on the patch it lies in; ``bounded_context`` says for which
networks that holds.
"""

from tilemap.models.networks.blocks import Encoder
from tilemap.models.networks.building import (
    PLAIN,
    STRIDE,
    bounded_context,
    build,
    seeded,
    stride_of,
)
from tilemap.models.networks.deeplab import DeepLabV3Plus
from tilemap.models.networks.efficientnet import EfficientNetLite0
from tilemap.models.networks.encoders import ENCODERS, make_encoder
from tilemap.models.networks.fcn import FCN
from tilemap.models.networks.pretrained import PACKAGED, load_encoder_weights, weights_file
from tilemap.models.networks.pspnet import PSPNet
from tilemap.models.networks.resnet import BasicBlock, Bottleneck, ResNet
from tilemap.models.networks.siamese import SiameseUNet
from tilemap.models.networks.unet import UNet

__all__ = [
    "ENCODERS",
    "FCN",
    "PACKAGED",
    "PLAIN",
    "STRIDE",
    "BasicBlock",
    "Bottleneck",
    "DeepLabV3Plus",
    "EfficientNetLite0",
    "Encoder",
    "PSPNet",
    "ResNet",
    "SiameseUNet",
    "UNet",
    "bounded_context",
    "build",
    "load_encoder_weights",
    "make_encoder",
    "seeded",
    "stride_of",
    "weights_file",
]
