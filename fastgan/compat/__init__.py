"""Drop-in replacements with names and signatures of other libraries, in a module for each library.

Most share a name with something in fastgan, but not its signature. Those without such a conflict are also
importable from `fastgan.losses`: `adv_loss` (StarGAN v2), `BinaryLoss` and `CategoryLoss` (zi2zi),
`jpeg_codec_differentiable` (kornia) and `diff_jpeg_coding` (Diff-JPEG). That `CategoryLoss` draws no random
numbers, whereas zi2zi's and :class:`fastgan.compat.zi2zi.CategoryLoss` do.

`taming`, `ldm`, `rae` and `videoseal` have whole losses of generator and discriminator, whose terms are
weighed by their gradients, with :class:`fastgan.monitor.LossBudget` inside.
"""
