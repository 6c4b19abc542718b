"""The only program that imports tensorrt, tensorrt_rtx and pycuda: it builds, inspects and runs engines in its own process.

    python optkit/tensorrt/worker JOB.json

TensorRT's objects can crash the interpreter, and its releases need different Python versions. So this program imports nothing of optkit, needs
only the standard library, numpy and TensorRT (pycuda to run engines), and works with Python 3.8 and later.

    protocol        its messages
    jobs            its jobs
    runtimes        the three libraries, and the features of each release
    log             TensorRT's logger
    build           a whole build: network, builder_config, timing_cache
    session         a loaded engine: execution, cuda_graph, tensors
    timing, layers  its times, and the precision of its layers

TensorRT raises no exceptions: its calls return None, False or -1 and write the reason to a logger. So every result is checked here. The
features of a release are detected on its objects (`hasattr`), never derived from its version.
"""
