"""A stand-in for pycuda: device memory is host memory, and every stream has done its work at once."""
