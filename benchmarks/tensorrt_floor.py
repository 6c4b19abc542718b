"""The lower bound for `tensorrt_build.py`: a minimal script that builds one engine and imports only TensorRT-RTX.

python benchmarks/tensorrt_floor.py MODEL.onnx PLAN "input=1x3x224x224,8x3x224x224,16x3x224x224" ...
"""

import sys

import tensorrt_rtx_bindings as trt


def main(onnx: str, plan: str, *profiles: str) -> None:
    """Parse the file, add the profile, build, write."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx):
        raise SystemExit(str(parser.get_error(0).desc()))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for text in profiles:
        name, _, shapes = text.partition("=")
        profile.set_shape(name, *([int(n) for n in shape.split("x")] for shape in shapes.split(",")))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    with open(plan, "wb") as file:  # noqa: PTH123 - pathlib is a module more than the floor needs
        file.write(built)


main(*sys.argv[1:])
