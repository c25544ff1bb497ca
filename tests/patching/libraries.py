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
    "basicsr/losses/__init__.py": "from .gan_loss import GANLoss",
    "basicsr/losses/gan_loss.py": GAN_LOSS,
    "basicsr/utils/__init__.py": "",
    "basicsr/utils/registry.py": REGISTRY,
}
