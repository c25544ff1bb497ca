"""A recipe on Ray Train: two workers, each of which runs `fastgan train`; needs `pip install "ray[train]"`.

Ray tells each worker its rank and the address of rank 0 in torchrun's environment variables, which fastgan
reads. A process of its own takes them, because fastgan connects the processes itself, and handles signals.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import torch

OPTIONS = "dcgan --preset demo --num_steps 4 --log_interval 2 --accelerator cpu --global_batch_size 16"


def worker(config: dict[str, str]) -> None:
    torch.distributed.destroy_process_group()  # Ray's, whose port rank 0 then takes
    command = [sys.executable, "-m", "fastgan", "train", *config["options"].split()]
    # Only rank 0 writes; a folder that outlives its machine lets a restart go on.
    subprocess.run([*command, "--resume", "auto", "--runs_path", config["runs"]], check=True)


def main() -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    runs = os.environ.get("RUNS", tempfile.mkdtemp())
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True)
    TorchTrainer(
        worker,
        train_loop_config={"options": OPTIONS, "runs": runs},
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(storage_path=runs, failure_config=FailureConfig(max_failures=2)),
    ).fit()
    print("results in", os.listdir(runs))


if __name__ == "__main__":
    main()
