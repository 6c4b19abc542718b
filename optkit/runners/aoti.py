"""Packages of AOTInductor: native code, which is executed when it is loaded. Only a package that its passport describes is loaded."""

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from optkit.aoti.host import this_host
from optkit.artifact import Artifact
from optkit.artifact.compiled import CompiledFacts, compiled_refusal
from optkit.artifact.tensors import Feed, check_feed
from optkit.errors import FeedError, RunnerError, first_line
from optkit.pt2_file import check_members
from optkit.runners.pytorch import TorchRunner

if TYPE_CHECKING:
    import torch

_NO_FACTS = (
    "a package is native code, which is executed when it is loaded, and its passport says nothing of it. It was not loaded. Compile the "
    "model with optkit compile."
)


class AotiRunner(TorchRunner):
    """A package, called through its loader, which takes and returns lists of tensors."""

    def _load(self) -> None:
        compiled = self._facts()
        if self.device != compiled.device:
            raise RunnerError(
                f"device {str(self.device)!r}: {self.title} is compiled for {compiled.device}. Use --device {compiled.device}, or "
                f"compile the model again."
            )
        if why_not := why_package_not_runnable(self.artifact):
            raise RunnerError(f"{self.title}: {why_not}")
        if not self.artifact.is_intact():
            raise RunnerError(
                f"{self.title}: is not the package that its passport describes (another SHA-256). A package is native code, which is "
                f"executed when it is loaded. It was not loaded. Compile the model again."
            )
        check_members(self.artifact.path)
        super()._load()

    def _facts(self) -> CompiledFacts:
        if self.artifact.compiled is None:
            raise RunnerError(f"{self.title}: {_NO_FACTS}")
        return self.artifact.compiled

    def _module(self) -> "torch.nn.Module":
        import torch

        run = self._loader()

        class Package(torch.nn.Module):
            def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return tuple(run(list(tensors)))

        return Package().eval()

    def _loader(self) -> "Callable[[list[torch.Tensor]], list[torch.Tensor]]":
        import torch

        log = logging.getLogger("torch")
        level = log.level
        log.setLevel(logging.ERROR)  # it warns of an outdated file before it raises the cause
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                package = torch._inductor.aoti_load_package(
                    str(self.artifact.path),
                    run_single_threaded=self.cuda_graph,  # its lock cannot be captured
                )
        except Exception as e:  # of torch, or of its C++
            raise RunnerError(
                f"{self.artifact.path}: cannot be loaded as a package of AOTInductor ({first_line(e)})"
            ) from e
        finally:
            log.setLevel(level)
        run: Callable[[list[torch.Tensor]], list[torch.Tensor]] = package.loader.run
        return run

    def _function(self) -> "Callable[..., object]":
        """Return forward itself: calling the module, or the package with its tree of arguments, costs more for each call."""
        return self._loaded_module.forward

    def why_not_concurrent(self) -> str | None:
        """Return that a loaded package runs one call at a time."""
        return "a loaded package of AOTInductor runs one call at a time"

    def _check(self, feed: Feed) -> None:
        """Check also the ranges that the code was compiled for: it has no guards, and other sizes give wrong results."""
        super()._check(feed)
        sizes = check_feed(feed, self.artifact.inputs)
        for name, allowed in self._facts().dims.items():
            size = sizes.get(name, allowed.opt)
            if not allowed.min <= size <= allowed.max or size % allowed.multiple_of:
                steps = f" in steps of {allowed.multiple_of}" if allowed.multiple_of > 1 else ""
                raise FeedError(
                    f"dimension {name!r}: got {size}; {self.title} is compiled for {allowed.min} to {allowed.max}{steps}, and its code "
                    f"does not check sizes. Compile the model again with another range."
                )


def why_package_not_runnable(artifact: Artifact) -> str | None:
    """Return the reason why a package cannot run here, from its passport, without loading it; None where none is known."""
    compiled = artifact.compiled
    if compiled is None:
        return _NO_FACTS
    host = this_host(gpu=compiled.device == "cuda")
    if compiled.device == "cuda" and host.target is None:
        return "a package for cuda needs a GPU, and torch finds none that it can use here"
    return compiled_refusal(compiled, host)
