import torch


def gradient_budget(gradients, weights=None, *, backend=None):
    wide = torch.float64 if gradients[0].dtype == torch.float64 else torch.float32
    flat = torch.stack([g.reshape(-1).to(wide) for g in gradients])
    total = flat.sum(0) if weights is None else (weights[:, None] * flat).sum(0)
    return flat @ flat.T, total.view_as(gradients[0]).to(gradients[0].dtype)
