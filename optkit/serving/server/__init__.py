"""Servers that optkit starts on this machine, and one HTTP request within a time limit."""
