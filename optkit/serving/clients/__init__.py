"""Python clients for packaged models. The first three are copied into them and import nothing of optkit.

triton, torchserve      the client of each server
router          splits requests between variants
source          the class of one model, written below the copied code
samples         inputs to try a client with
folder          where a client lies; a file that a person edited stays
"""
