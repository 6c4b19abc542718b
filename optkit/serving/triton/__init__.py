"""A Triton model repository.

package         writes one model
folder, merge, package_record   its files, the fields that a person edited, the record of the files that optkit wrote
config, contract        config.pbtxt, and the shapes that clients see
plan, libtorch  rules for TensorRT engines and for TorchScript
ensemble/       pipelines of several models
python_backend/ Python functions as models
lint/           the faults of a repository, found without a server
server, connection      a local Triton process, and requests to any Triton
smoke, command  golden samples replayed, and the command that serves a repository
generated_client        the Python client of one model
"""
