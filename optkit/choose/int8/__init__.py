"""Which INT8 types a model gets, and which of its layers stay in float, by measurement."""
