"""Python clients for packaged models. The templates and the router are copied into each client and import nothing of optkit.

triton_template, torchserve_template    the client code that is the same for every model of a server
router          splits requests between variants
generate        the class of one model, written below the copied code
samples         inputs to try a client with
folder          writes a client; files that a person edited stay
"""
