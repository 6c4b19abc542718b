"""The choice of INT8 types, and of the layers that stay in float, by measurement.

types           tries the types that fit the processor and keeps the fastest accurate one
candidates      makes the models that are tried
gain            size and latency before and after
accuracy_limit  leaves the fewest layers in float that bring the model within its accuracy limit
sensitivity     ranks the layers by the effect on the outputs of quantizing each alone
holdout         splits samples into those that rank layers and those that measure a model
mixed_precision, mixed_precision_graph      one model whose layers can be switched between INT8 and float
"""
