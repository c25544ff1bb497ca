"""dists-pytorch"""

from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._dists import SERVES, dists_forward

TARGET = Target(
    "dists_pytorch",
    (Replacement("DISTS_pytorch.DISTS_pt", "DISTS.forward", adapt=dists_forward, serves=SERVES),),
    (Kept("DISTS_pytorch.DISTS.__init__", "the metric keeps its own networks, weights and state"),),
)
