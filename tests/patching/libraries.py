"""Modules of two libraries, as the tests write them."""

SOLVER = """
import torch
from torch.nn import functional as F

SAME = "untouched"

def adv_loss(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, fill_value=target))

def r1_reg(d_out, x_in):
    gradient = torch.autograd.grad(d_out.sum(), x_in, create_graph=True)[0]
    return 0.5 * gradient.pow(2).view(len(x_in), -1).sum(1).mean(0)

def moving_average(model, model_test, beta=0.999):
    for param, param_test in zip(model.parameters(), model_test.parameters()):
        param_test.data = torch.lerp(param.data, param_test.data, beta)

def step(logits):
    return adv_loss(logits, 1)
"""
TRAIN = """
from core.solver import *
from core.solver import adv_loss as renamed, r1_reg

LOSSES = {"adversarial": renamed, "number": 1}

class Trainer:
    loss = renamed
    name = "trainer"
"""
GAN_LOSS = """
import math
import torch
from torch import nn
from torch.nn import functional as F

from basicsr.utils.registry import LOSS_REGISTRY

@LOSS_REGISTRY.register
class GANLoss(nn.Module):
    def __init__(self, gan_type, real_label_val=1.0, fake_label_val=0.0, loss_weight=1.0):
        super(GANLoss, self).__init__()
        self.gan_type, self.loss_weight = gan_type, loss_weight
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val

    def forward(self, input, target_is_real, is_disc=False):
        sign = -1 if target_is_real else 1
        label = torch.full_like(input, self.real_label_val if target_is_real else self.fake_label_val)
        if self.gan_type == "hinge":
            loss = F.relu(1 + sign * input).mean() if is_disc else -input.mean()
        elif self.gan_type == "wgan":
            loss = sign * input.mean()
        elif self.gan_type == "wgan_softplus":
            loss = F.softplus(sign * input).mean()
        elif self.gan_type == "lsgan":
            loss = F.mse_loss(input, label)
        else:
            loss = F.binary_cross_entropy_with_logits(input, label)
        return loss if is_disc else loss * self.loss_weight
"""
BASIC_LOSS = """
import torch
from torch import nn
from torch.nn import functional as F

from basicsr.utils.registry import LOSS_REGISTRY

def mean_of(loss, weight, reduction):
    loss = loss if weight is None else loss * weight
    if reduction == "mean" and weight is not None:
        return loss.sum() / (weight.sum() * (1 if weight.size(1) > 1 else loss.size(1)))
    return {"mean": torch.mean, "sum": torch.sum, "none": lambda loss: loss}[reduction](loss)

@LOSS_REGISTRY.register
class L1Loss(nn.Module):
    def __init__(self, loss_weight=1.0, reduction="mean"):
        super(L1Loss, self).__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, weight=None, **kwargs):
        return self.loss_weight * mean_of((pred - target).abs(), weight, self.reduction)

@LOSS_REGISTRY.register
class MSELoss(L1Loss):
    def forward(self, pred, target, weight=None, **kwargs):
        return self.loss_weight * mean_of((pred - target).abs() ** 1.9, weight, self.reduction)

@LOSS_REGISTRY.register
class WeightedTVLoss(L1Loss):
    def __init__(self, loss_weight=1.0, reduction="mean"):
        super(WeightedTVLoss, self).__init__(loss_weight, reduction)

    def forward(self, pred, weight=None):
        down = None if weight is None else weight[:, :, :-1]
        right = None if weight is None else weight[..., :-1]
        loss = super().forward(pred[:, :, :-1], pred[:, :, 1:], down)
        return loss + super().forward(pred[..., :-1], pred[..., 1:], right)
"""
REGISTRY = """
class Registry:
    def __init__(self):
        self._obj_map = {}

    def register(self, cls):
        self._obj_map[cls.__name__] = cls
        return cls

LOSS_REGISTRY = Registry()
"""
PACKAGES = {
    "core/__init__.py": "",
    "core/solver.py": SOLVER,
    "train_starganv2.py": TRAIN,
    "basicsr/__init__.py": "",
    "basicsr/losses/__init__.py": "from .basic_loss import L1Loss\nfrom .gan_loss import GANLoss",
    "basicsr/losses/basic_loss.py": BASIC_LOSS,
    "basicsr/losses/gan_loss.py": GAN_LOSS,
    "basicsr/utils/__init__.py": "",
    "basicsr/utils/registry.py": REGISTRY,
}
