"""torch.optim"""

from fastgan import optim
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import of_steps

TARGET = Target(
    "torch.optim",
    (
        Replacement("torch.optim.adam", "Adam", optim.Adam, probe=of_steps(weight_decay=0.1)),
        Replacement("torch.optim.adamw", "AdamW", optim.AdamW, probe=of_steps()),
        Replacement("torch.optim.rmsprop", "RMSprop", optim.RMSprop, probe=of_steps(momentum=0.5)),
    ),
    (Kept("torch.optim.*", "fastgan has no other optimizers"),),
)
