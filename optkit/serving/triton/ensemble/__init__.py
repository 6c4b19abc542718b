"""Pipelines of several models.

package         proves and writes a pipeline
config          its config.pbtxt
local           runs it without a server
"""
