"""Whether compiled code runs on another machine: only what is dangerous is refused."""

import re

import pytest

from optkit.artifact.compiled import CompiledFacts, Host, compiled_refusal

FACTS = CompiledFacts(
    torch="2.13.0+cpu",
    device="cpu",
    target=None,
    gpu=None,
    machine="x86_64",
    processor_features=("avx2", "fma"),
    instruction_set="AVX2",
    glibc="2.34",
    needed=("libc.so.6",),
    compiler="g++ 12.2.0",
    dims={},
    settings={},
    compile_s=1,
    load_s=1,
    first_call_s=1,
)
HERE = Host(torch="2.13.0", machine="x86_64", processor_features=("avx2", "fma"), glibc="2.36", target=None)
ON_GPU = {"device": "cuda", "target": "sm90", "gpu": "H200"}

REFUSED = {
    "newer torch": ({"torch": "2.14.1"}, {}, r"compiled by torch 2\.14\.1, this is the older torch 2\.13\.0"),
    "another machine": ({"machine": "aarch64"}, {}, "compiled for aarch64, this is x86_64"),
    "instructions": (
        {"processor_features": ("amx_tile", "avx2")},
        {},
        "for a processor with amx_tile, which the one here",
    ),
    "newer C library": ({"glibc": "2.38"}, {}, r"needs the C library GLIBC 2\.38, this is 2\.36"),
    "two digits": ({"glibc": "2.9"}, {"glibc": "2.4"}, r"GLIBC 2\.9, this is 2\.4"),
    "another GPU": (ON_GPU, {"target": "sm86"}, "compiled for sm_90, this is sm_86"),
    "no GPU": (ON_GPU, {}, "compiled for sm_90, this is no GPU"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_dangerous_is_refused_in_one_sentence(case: str) -> None:
    facts, here, message = REFUSED[case]
    found = compiled_refusal(FACTS.model_copy(update=facts), HERE.model_copy(update=here))
    assert found is not None
    assert re.search(message, found), found
    assert ": compile it there, with --device" in found
    assert ". " not in found


LOADS = {
    "the same": ({}, {}),
    "an older torch": ({"torch": "2.11.0"}, {}),
    "a later fix of torch": ({"torch": "2.13.1"}, {}),
    "fewer instructions": ({"processor_features": ("fma",)}, {}),
    "an older C library": ({"glibc": "2.4"}, {"glibc": "2.36"}),
    "a system that does not list its instructions": ({}, {"processor_features": ()}),
    "a system without GLIBC": ({}, {"glibc": None}),
    "the same GPU": (ON_GPU, {"target": "sm90"}),
    "another GPU, for the CPU": ({}, {"target": "sm86"}),
}


@pytest.mark.parametrize("case", LOADS)
def test_what_is_not_loads(case: str) -> None:
    facts, here = LOADS[case]
    assert compiled_refusal(FACTS.model_copy(update=facts), HERE.model_copy(update=here)) is None
