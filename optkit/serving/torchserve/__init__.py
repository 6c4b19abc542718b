"""A TorchServe archive (.mar) and the configuration beside it.

package         writes an archive
mar             the zip file, the same bytes each time
config, properties      config.properties, and the syntax of such files
contract, handler       the contract.json inside an archive, and the handler, which reads it and imports nothing of optkit
golden, smoke   golden samples, and their replay on a server
server          a local server
generated_client        the Python client of one model
"""
