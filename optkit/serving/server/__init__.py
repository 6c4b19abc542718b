"""Servers that optkit starts on this machine.

ports           free loopback ports
http            one HTTP request within a time limit
"""
