"""The choice of INT8 types, and of the layers that stay in float, by measurement."""
