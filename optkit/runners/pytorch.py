"""PyTorch: the module itself (eager), TorchScript files and ExportedPrograms."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from optkit import user_code
from optkit.artifact.findings import CallParts
from optkit.artifact.tensors import Feed
from optkit.errors import RunnerError, first_line
from optkit.pt2_file import native_code_fault
from optkit.pytorch.forward import flatten, forward_call, plain_attention, torchscript_notices_off
from optkit.pytorch.quantized_engine import quantized_engine, supported_engines
from optkit.pytorch.source import load_module
from optkit.runners.base import Device, Runner, shapes_text
from optkit.runners.cuda import call_parts, captured, disable_tf32, pinned

if TYPE_CHECKING:
    import torch


class TorchRunner(Runner):
    """A module on a device; a subclass loads the module."""

    @property
    def provider(self) -> str:
        """The device by torch's name."""
        return str(self._where)

    def _module(self) -> "torch.nn.Module":
        raise NotImplementedError

    def _function(self) -> Callable[..., object]:
        """Return the function that a bound call uses."""
        return self._loaded_module

    def _load(self) -> None:
        import torch

        if self.device is Device.CUDA and not torch.cuda.is_available():
            raise RunnerError(
                "device 'cuda': torch finds no usable GPU here. Use --device cpu, or a CUDA build of torch."
            )
        self._where = torch.device(self.device)
        module = self._module()
        self._call = forward_call(module, self.artifact.inputs)
        self._loaded_module = module.to(self._where)
        self._set = contextlib.ExitStack()
        if self.device is Device.CUDA:
            self._set.enter_context(disable_tf32())
        self._threads_before = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        self._held: list[tuple[object, object]] = []  # inputs and outputs of captured graphs

    def _free(self) -> None:
        import torch

        del self._loaded_module, self._held
        torch.set_num_threads(self._threads_before)
        self._set.close()
        if self.device is Device.CUDA:
            torch.cuda.empty_cache()

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode(), plain_attention():
            try:
                args, kwargs = self._placed(feed)
                found = list(flatten(self._loaded_module(*args, **kwargs)))
            except Exception as e:  # forward is the user's
                raise RunnerError(f"{self.title}: failed on {shapes_text(feed)}: {user_code.describe(e)}") from e
            names = [spec.name for spec in self.artifact.outputs]
            if len(found) != len(names):
                raise RunnerError(f"{self.title}: returned {len(found)} outputs; expected {', '.join(names)}")
            # A copy, because a module may return a view of its input or of a buffer.
            return {name: tensor.to("cpu", copy=True).numpy() for name, (_, tensor) in zip(names, found, strict=True)}

    def _bind(self, feed: Feed) -> Callable[[], object]:
        import torch

        args, kwargs = self._placed(feed)
        call: Callable[[], object] = functools.partial(self._function(), *args, **kwargs)
        if self.device is Device.CPU:
            return call
        torch.cuda.synchronize()  # a caller's own stream does not wait for the copies
        if self.cuda_graph:
            call = self._graph(call)

        def call_and_wait() -> None:
            call()
            torch.cuda.current_stream().synchronize()

        return call_and_wait

    def _graph(self, call: Callable[[], object]) -> Callable[[], None]:
        """Return a function that replays a call; its inputs and outputs stay allocated while the runner is open."""
        import torch

        try:
            with torch.inference_mode():
                replay, outputs = captured(call)
        except RuntimeError as e:
            raise RunnerError(
                f"{self.title}: cannot be captured as a CUDA graph ({first_line(e)}). Measure it without a CUDA graph."
            ) from e
        self._held.append((call, outputs))
        return replay

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Enter torch's inference mode, which is set for each thread; with several streams also use the thread's own stream."""
        import torch

        own = self.device is Device.CUDA and self.streams > 1
        stream = torch.cuda.stream(torch.cuda.Stream()) if own else contextlib.nullcontext()
        with torch.inference_mode(), stream:
            yield

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:
        """Return the parts of a call on a GPU by CUDA events; empty on a CPU."""
        if self.device is Device.CPU:
            return ()
        import torch

        on_host = {name: torch.from_numpy(np.array(array)).pin_memory() for name, array in feed.items()}
        placed = {name: tensor.to(self._where) for name, tensor in on_host.items()}
        args, kwargs = self._call.arguments(placed)
        call: Callable[[], object] = functools.partial(self._function(), *args, **kwargs)
        with torch.inference_mode():
            outputs = call()
        if self.cuda_graph:
            call, outputs = self._graph(call), self._held[-1][1]
        back = [(tensor, pinned(tensor)) for _, tensor in flatten(outputs)]

        def copy_in() -> None:
            for name, tensor in placed.items():
                tensor.copy_(on_host[name], non_blocking=True)

        def copy_out() -> None:
            # The outputs of the first call: later outputs have the same size.
            for tensor, host in back:
                host.copy_(tensor, non_blocking=True)

        torch.cuda.synchronize()
        with torch.inference_mode():
            return (call_parts(torch.cuda.current_stream(), copy_in, call, copy_out),)

    def _placed(self, feed: Feed) -> "tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]":
        import torch

        return self._call.arguments({name: torch.from_numpy(np.array(a)).to(self._where) for name, a in feed.items()})


class EagerRunner(TorchRunner):
    """The source module in eager mode."""

    @property
    def title(self) -> str:
        """The name in messages, because optkit made its file."""
        return "the model"

    def _module(self) -> "torch.nn.Module":
        module = load_module(self.artifact)  # shared in this process, so only a copy moves to a GPU
        return copy.deepcopy(module) if self.device is Device.CUDA else module


class TorchScriptRunner(TorchRunner):
    """A TorchScript file; an INT8 file needs the quantized engine that it was made for, and runs on CPUs only."""

    def _load(self) -> None:
        engine = self.artifact.torch_engine
        if engine and self.device is Device.CUDA:
            raise RunnerError(f"{self.artifact.path.name}: INT8 TorchScript runs on CPUs only. Use --device cpu.")
        if engine and engine not in supported_engines():
            raise RunnerError(
                f"{self.artifact.path.name}: was made for torch's quantized engine {engine!r}; torch has "
                f"{', '.join(supported_engines()) or 'none'} here. Quantize it again with --backend auto."
            )
        with contextlib.ExitStack() as stack:
            stack.enter_context(quantized_engine(engine))
            super()._load()
            self._engine = stack.pop_all()

    def _free(self) -> None:
        super()._free()
        self._engine.close()

    def _module(self) -> "torch.nn.Module":
        import torch

        try:
            with torchscript_notices_off():
                module: torch.nn.Module = torch.jit.load(str(self.artifact.path), map_location=self._where)
            return module.eval()
        except (RuntimeError, ValueError) as e:
            raise RunnerError(f"{self.artifact.path}: cannot be loaded as TorchScript ({first_line(e)})") from e

    def _function(self) -> Callable[..., object]:
        """Return forward itself: a loaded file has no Python hooks, and looking for them takes 1 us a call."""
        return self._loaded_module.forward


class ExportedProgramRunner(TorchRunner):
    """An ExportedProgram, called with positional inputs, as the stage captures it."""

    def _module(self) -> "torch.nn.Module":
        import torch

        if fault := native_code_fault(self.artifact.path):
            raise RunnerError(f"{self.artifact.path}: {fault}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(self.artifact.path)
        except Exception as e:  # zip, json and torch each raise their own here
            raise RunnerError(f"{self.artifact.path}: cannot be loaded as an ExportedProgram ({first_line(e)})") from e
        if self.device is Device.CUDA:
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(self._where))
        return program.module()
