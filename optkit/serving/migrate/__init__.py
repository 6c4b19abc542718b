"""From a TorchServe archive to a Triton model repository."""
