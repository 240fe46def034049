"""Building blocks: what stands before, behind and around optimizers in a chain."""
