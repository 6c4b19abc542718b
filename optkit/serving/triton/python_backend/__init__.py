"""Python functions as models of Triton's Python backend.

functions       a function, and the contract that it must keep
package         proves a function and writes its model
folder          the files of the model
model           runs inside the server; imports nothing of optkit
"""
