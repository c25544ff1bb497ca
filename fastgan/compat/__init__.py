"""Drop-ins with names and signatures of other code, by the library that they come from.

Most share a name with something of ours but not its signature. Those that nothing of ours collides with are
importable from `fastgan.losses`, too: `adv_loss` (StarGAN v2), `BinaryLoss` and `CategoryLoss` (zi2zi),
`jpeg_codec_differentiable` (kornia) and `diff_jpeg_coding` (Diff-JPEG). There `CategoryLoss` draws no random
numbers, as zi2zi's own does and :class:`fastgan.compat.zi2zi.CategoryLoss` with it.
"""
