"""A device's graph is recorded on a stream of its own, and told of the generators it draws from."""

import contextlib
import types

import pytest
import torch

import volano
from volano.device.graphs import DeviceGraph, has_graphs


def test_the_device_records_and_replays_by_its_own_graph():
    calls = []

    class Graph:
        def register_generator_state(self, generator):
            calls.append(generator)

        def replay(self):
            calls.append("replay")

    @contextlib.contextmanager
    def graph(own, *, capture_error_mode):
        calls.append(capture_error_mode)
        yield
        calls.append(type(own).__name__)

    module = types.SimpleNamespace(**{"CUDAGraph": Graph, "graph": graph})
    generator = torch.Generator()
    recorded = DeviceGraph(module)
    with recorded.recording([generator]):
        calls.append("inside")
    recorded.replay()
    assert calls == [generator, "thread_local", "inside", "Graph", "replay"]
    assert has_graphs(module)


def test_a_device_without_graphs_says_so():
    assert not volano.Device("cpu").has_graphs
    if not torch.accelerator.is_available():
        assert not has_graphs(types.SimpleNamespace())
        with pytest.raises((RuntimeError, AttributeError)):
            DeviceGraph().replay()
