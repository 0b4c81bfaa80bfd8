"""A device's graph is recorded on a stream of its own, and told of the generators it draws from; of
a recording that fails nothing is left."""

import contextlib
import types

import pytest
import torch
from torch.torch_version import TorchVersion

import volano
from volano.device.graphs import DeviceGraph, has_graphs


class Generator:
    """A generator that refuses to draw from the beginning of a recording to its end."""

    is_recorded = False

    def clone_state(self):
        return self.is_recorded

    def graphsafe_set_state(self, state):
        self.is_recorded = state


class Runtime:
    """What torch's module of CUDA does, without CUDA."""

    def __init__(self):
        self.calls, self.streams, self.pools = [], ["default"], []
        self.default_generators = [Generator(), Generator()]
        runtime = self

        class Graph:
            has_ended = False

            def register_generator_state(self, generator):
                runtime.calls.append(("register", generator))

            def replay(self):
                runtime.calls.append("replay")

            def reset(self):
                runtime.calls.append("reset")

            def pool(self):
                if not self.has_ended:
                    raise RuntimeError("called without a preceding successful capture")

        self.CUDAGraph = Graph

    def graph_pool_handle(self):
        return 0, 7

    def current_device(self):
        return 1

    def current_stream(self):
        return self.streams[-1]

    def Stream(self):  # noqa: N802 - its name there
        return "own"

    @contextlib.contextmanager
    def stream(self, stream):
        before = [*self.streams]
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams[:] = before

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        """As torch's: a recording that fails leaves its stream, its pool and its generators."""
        self.calls.append((pool, capture_error_mode))
        self.streams.append(stream)
        self.pools.append(pool)
        for generator in self.default_generators:
            generator.is_recorded = True
        try:
            yield
        except ValueError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        finally:
            graph.has_ended = "read" not in self.calls
            self.calls.append("ended")
        self._end(pool)

    def _end(self, pool):
        self.streams.pop()
        self.pools.remove(pool)
        for generator in self.default_generators:
            generator.is_recorded = False

    def release(self, index, pool):
        assert index == 1
        if pool not in self.pools:
            raise RuntimeError("not currently recording to mempool_id")
        self.pools.remove(pool)


@pytest.fixture(params=["2.9.0", "2.14.1"])
def runtime(request, monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(torch, "__version__", TorchVersion(request.param))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", runtime.release, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", runtime.release, raising=False)
    return runtime


def test_the_device_records_and_replays_by_its_own_graph(runtime):
    generator = Generator()
    recorded = DeviceGraph(runtime)
    with recorded.recording([generator]):
        runtime.calls.append(runtime.current_stream())
    recorded.replay()
    told = [("register", generator)] if torch.__version__ < (2, 14) else []
    assert runtime.calls == [*told, ((0, 7), "thread_local"), "own", "ended", "replay"]
    assert runtime.current_stream() == "default"
    assert has_graphs(runtime)


def record(runtime, error):
    with DeviceGraph(runtime).recording():
        raise error


def test_nothing_is_left_of_a_recording_that_fails(runtime):
    runtime.calls.append("read")
    with pytest.raises(RuntimeError, match="during capture"):
        record(runtime, ValueError("a read of a value"))
    assert runtime.current_stream() == "default"
    assert runtime.calls[-1] == "reset"
    if torch.__version__ < (2, 14):  # from then on `reset` does the rest
        assert not runtime.pools
        assert not runtime.default_generators[1].is_recorded


def test_a_recording_that_ended_well_keeps_its_memory(runtime):
    with pytest.raises(KeyError):
        record(runtime, KeyError("of the user's code"))
    assert "reset" not in runtime.calls
    assert runtime.pools


def test_a_device_without_graphs_says_so():
    assert not volano.Device("cpu").has_graphs
    if not torch.accelerator.is_available():
        assert not has_graphs(types.SimpleNamespace())
        with pytest.raises((RuntimeError, AttributeError)):
            DeviceGraph().replay()
