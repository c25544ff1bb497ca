"""The processes of a run, on one machine or on many.

* `world.py`: this process's place among the others, as torchrun tells it; `clusters.py`: as SLURM, LSF and
  MPI do; `children.py`: processes that the first one starts itself (`--devices`).
* `rendezvous.py`: how the processes find each other.
* `device.py`: the device of each.
* `peers.py`: connections by which all learn of a failure, and end together.
* `exchange.py`: gradients, averaged over the processes while backward runs; `half_sum.py`: in half the bytes.
* `objects.py`: objects as bytes and tensors, to be sent.
* `runtime.py`: all of this for the loop and the recipes.

Only rank 0 reads and writes the run's folder, and prints. What the others need from there, such as options
and checkpoints, it sends them, so that machines need not share a disk. Training data is read by each process.
"""
