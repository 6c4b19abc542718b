"""A TorchServe archive (.mar) and what lies beside it.

package         writes an archive
mar             the zip file, the same bytes each time
config          config.properties
contract, handler       what the generated handler is told, and the handler, which imports nothing of optkit
golden, smoke   golden samples, and their replay on a server
server          a local server
client_source   what a client of the model holds
"""
