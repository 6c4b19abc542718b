"""A Triton model repository.

package         writes one model: `folder` its files, `merge` keeps what a person edited, `record` what optkit wrote
config, contract        config.pbtxt, and the shapes that clients see
plan, libtorch  what is special for TensorRT engines and for TorchScript
ensemble/       pipelines of several models
python_backend/ Python functions as models
lint/           what is wrong with any repository, without a server
server, client, smoke, command  a local server, a client for tests, golden samples replayed, the command that serves
client_source   what a client of the model holds
"""
