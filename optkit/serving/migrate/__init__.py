"""From a TorchServe archive to a Triton model repository.

archive         reads an archive
repository      writes the model
container       the image in which a handler runs
handler_model   runs the archive's own handler inside Triton; imports nothing of optkit
"""
