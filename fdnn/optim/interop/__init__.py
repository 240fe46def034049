"""To torch.optim and back, and the signature of TorchOpt."""
