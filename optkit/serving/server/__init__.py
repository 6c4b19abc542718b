"""Servers that optkit starts on this machine.

process         the process of a server: started, watched, ended
http            one HTTP request within a time limit
"""
