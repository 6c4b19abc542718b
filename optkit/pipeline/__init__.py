"""Carrying out: the plan of a recipe, the run of a plan, and the single steps of the command line.

Its modules are imported by their own names: an export needs one of them, and not the plans and measurements behind the others.
"""
