"""Which INT8 types a model gets, and which of its layers stay in float, by measurement.

types           tries the types that fit the processor and keeps the fastest right one
candidates      makes the models that are tried
gain            size and latency before and after
accuracy_limit  leaves the fewest layers in float that bring the model within a limit on accuracy
sensitivity     ranks the layers by what quantizing each alone does to the outputs
holdout         splits samples into those that rank layers and those that judge
mixed_precision, mixed_precision_graph      one model whose layers can be switched between INT8 and float
"""
