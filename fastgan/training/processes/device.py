"""The device of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_of(name: str, option: str = "--device") -> torch.device:
    """The device of this name, as given to a command's option.

    Raises:
        ValueError: there is no such device on this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{option} {name!r} cannot be used: {reason}") from error
    return device


def device_of_process(accelerator: str, local_rank: int) -> torch.device:
    """The device of the process with this rank on its machine, which CUDA calls use from now on.

    Args:
        accelerator: "cpu", "cuda", or "auto": a GPU where there is one, otherwise the CPU.

    Raises:
        ValueError: there is no GPU, or none for this process.
    """
    import torch

    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(f"accelerator {accelerator!r} cannot be used: torch finds no GPU")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"accelerator {accelerator!r} has {count} devices on this machine, and process {local_rank} of "
            "those here needs one of its own"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
