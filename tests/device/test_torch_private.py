"""What each of torch's private names does for us; a torch that changes one fails here first."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from children import PATIENCE_SECONDS
from volano.device import torch_private as private

ADD = torch.ops.aten.add.Tensor


LOADING = """
import sys
from volano.device import torch_private as private
assert not {"torch._dynamo", "torch._inductor"} & set(sys.modules)
private.load_dynamo()
assert {"torch._dynamo", "torch._inductor.lowering"} & set(sys.modules) == {"torch._dynamo"}
"""


def test_the_compiler_is_loaded_when_it_is_called_for_and_not_by_naming_it():
    subprocess.run([sys.executable, "-c", LOADING], check=True, timeout=PATIENCE_SECONDS)
    private.load_compiler()
    assert "torch._inductor.lowering" in sys.modules


class TestTensors:
    def test_subclasses_are_taken_as_the_tensors_that_they_are(self):
        class Refuses(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                raise TypeError(func)

        value = torch.ones(2).as_subclass(Refuses)
        with pytest.raises(TypeError):
            torch.relu(value)
        with private.plain_functions():
            assert type(torch.relu(value)) is torch.Tensor

    def test_a_version_counts_writes_through_views_too(self):
        tensor = torch.zeros(4)
        before = private.version_of(tensor)
        tensor[1:].add_(1)
        assert private.version_of(tensor) == before + 1

    def test_a_view_has_its_base(self):
        tensor = torch.zeros(4)
        assert private.base_of(tensor) is None
        assert private.base_of(tensor[1:]) is tensor

    def test_views_share_the_key_of_a_storage_and_fake_tensors_have_one(self):
        tensor = torch.zeros(4)
        assert (
            private.storage_key(tensor)
            == private.storage_key(tensor[2:])
            != private.storage_key(tensor.clone())
        )
        with private.FakeTensorMode():
            fake = torch.zeros(4)
        assert private.storage_key(fake) == private.storage_key(fake[2:])

    def test_parts_of_a_sparse_tensor_are_as_they_are(self):
        sparse = torch.sparse_coo_tensor(
            torch.tensor([[1, 1]]), torch.tensor([2.0, 3.0]), (4,), check_invariants=True
        )
        assert private.sparse_indices_of(sparse).tolist() == [[1, 1]]
        assert private.sparse_values_of(sparse).tolist() == [2.0, 3.0]

    def test_a_modules_own_parameters_and_buffers_can_be_replaced(self):
        module = nn.BatchNorm1d(2)
        assert list(private.parameters_of(module)) == ["weight", "bias"]
        private.buffers_of(module)["running_mean"] = torch.ones(2)
        assert module.running_mean.tolist() == [1.0, 1.0]
        assert isinstance(module, private.AnyBatchNorm)
        assert isinstance(nn.InstanceNorm1d(2), private.AnyTrackingNorm)
        assert not isinstance(nn.LayerNorm(2), private.AnyTrackingNorm)
        assert isinstance(nn.Conv1d(2, 2, 1), private.AnyConvolution)
        assert not isinstance(nn.Linear(2, 2), private.AnyConvolution)
        assert isinstance(nn.Dropout2d(), private.AnyDropout)


class TestHooks:
    @pytest.mark.parametrize(
        "register",
        ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
         "register_full_backward_pre_hook"],
    )  # fmt: skip
    def test_of_a_module(self, register):
        module = nn.Linear(2, 2)
        assert not private.has_hooks(module)
        handle = getattr(module, register)(lambda *_: None)
        assert private.has_hooks(module)
        handle.remove()
        assert not private.has_hooks(module)

    @pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
    def test_of_a_parameter(self, register):
        parameter = nn.Parameter(torch.zeros(2))
        assert not private.has_hooks(parameter)
        getattr(parameter, register)(lambda *_: None)
        assert private.has_hooks(parameter)

    def test_of_all_modules(self):
        assert not private.has_hooks_on_all_modules()
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert private.has_hooks_on_all_modules()
        handle.remove()

    def test_of_a_step(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        assert not private.has_step_hooks(optimizer)
        handle = optimizer.register_step_post_hook(lambda *_: None)
        assert private.has_step_hooks(optimizer)
        handle.remove()
        handle = register_optimizer_step_pre_hook(lambda *_: None)
        assert private.has_step_hooks(optimizer)
        handle.remove()


class TestManyTensorsAtOnce:
    def test_copy_and_multiply(self):
        to = [torch.zeros(2), torch.zeros(3)]
        private.foreach_copy_(to, [torch.ones(2), torch.ones(3)])
        private.foreach_mul_(to, 3.0)
        assert [tensor.tolist() for tensor in to] == [[3.0] * 2, [3.0] * 3]

    def test_add(self):
        to = [torch.zeros(()), torch.ones(())]
        private.foreach_add_(to, 1)
        assert [float(tensor) for tensor in to] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("update", "kind"),
        [(private.fused_adam_, torch.optim.Adam), (private.fused_adamw_, torch.optim.AdamW)],
    )
    def test_a_fused_update_is_that_of_the_optimizer(self, update, kind):
        own, theirs = torch.ones(3), torch.nn.Parameter(torch.ones(3))
        optimizer = kind([theirs], lr=0.1, weight_decay=0.2, fused=True)
        average, square, counter = torch.zeros(3), torch.zeros(3), torch.zeros(())
        for gradient in (torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 0.0, 0.1])):
            theirs.grad = gradient.clone()
            optimizer.step()
            counter += 1
            update(
                [own], [gradient], [average], [square], [], [counter], lr=0.1, beta1=0.9,
                beta2=0.999, weight_decay=0.2, eps=1e-8, amsgrad=False, maximize=False,
                grad_scale=None, found_inf=None,
            )  # fmt: skip
            assert torch.equal(own, theirs)

    def test_lerp(self):
        begin, end = [torch.zeros(2)], [torch.ones(2)]
        assert private.foreach_lerp(begin, end, 0.25)[0].tolist() == [0.25, 0.25]
        private.foreach_lerp_(begin, end, 0.5)
        assert begin[0].tolist() == [0.5, 0.5]

    def test_norm(self):
        assert [
            float(norm) for norm in private.foreach_norm([torch.tensor([3.0, 4.0]), torch.zeros(2)])
        ] == [5.0, 0.0]

    @pytest.mark.parametrize(
        ("value", "flag"), [(1.0, 0.0), (float("inf"), 1.0), (float("nan"), 1.0)]
    )
    def test_the_check_raises_a_flag_and_multiplies(self, value, flag):
        tensors, found = [torch.tensor([2.0]), torch.tensor([value])], torch.zeros(1)
        private.check_and_unscale(tensors, found, torch.full((1,), 0.5))
        assert float(found) == flag
        assert float(tensors[0]) == 1.0


class TestDispatch:
    def test_names_and_schemas_of_operations(self):
        assert isinstance(ADD, private.OpOverload)
        assert private.operation_name(ADD) == "add"
        assert private.packet_of(ADD) is torch.ops.aten.add
        schema = private.schema_of(torch.ops.aten.add_.Tensor)
        assert (schema.name, schema.is_mutable) == ("aten::add_", True)
        assert schema.arguments[0].alias_info.is_write

    def test_a_mode_sees_operations_and_may_be_left(self):
        seen = []

        class Mode(private.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(func)
                return func(*args, **(kwargs or {}))

        one = torch.ones(2)
        with Mode():
            one + one
            with private.without_dispatch_modes():
                one * one
        assert seen == [ADD]

    def test_fake_tensors_have_shapes_and_no_values(self):
        with private.FakeTensorMode():
            product = torch.ones(2, 3) @ torch.ones(3, 4)
            assert product.shape == (2, 4)
            with pytest.raises(private.DataDependentOutputException):
                product.sum().item()
            with pytest.raises(private.DynamicOutputShapeException):
                product.nonzero()

    def test_trees(self):
        tree = {"a": [1, torch.zeros(2)], "b": (torch.ones(2),)}
        assert sum(isinstance(leaf, torch.Tensor) for leaf in private.tree_iter(tree)) == 2
        leaves, form = private.tree_flatten(tree)
        again = private.tree_unflatten(leaves, form)
        assert list(again) == ["a", "b"]
        assert isinstance(again["b"], tuple)
        mapped = private.tree_map_only(torch.Tensor, lambda tensor: tensor + 1, tree)
        assert mapped["a"][0] == 1
        assert mapped["b"][0].tolist() == [2.0, 2.0]

    def test_a_tensor_under_vmap_is_told(self):
        told = []
        torch.func.vmap(lambda row: told.append(private.is_batchedtensor(row)) or row)(
            torch.ones(2, 2)
        )
        assert told == [True]
        assert not private.is_batchedtensor(torch.ones(2))
        torch.func.grad(lambda x: told.append(private.is_transformed()) or x)(torch.ones(()))
        assert told[-1]
        assert not private.is_transformed()


class TestAutograd:
    def test_nodes_are_numbered_in_the_order_in_which_they_are_made(self):
        leaf = torch.ones(2, requires_grad=True)
        before = private.next_sequence_number()
        first = leaf * 2
        assert before <= private.sequence_number(first.grad_fn) < private.next_sequence_number()
        assert private.sequence_number((first * 2).grad_fn) > private.sequence_number(first.grad_fn)

    def test_a_backward_pass_is_told_by_its_task_and_its_node(self):
        class Look(torch.autograd.Function):
            @staticmethod
            def forward(ctx, value):
                return value.clone()

            @staticmethod
            def backward(ctx, gradient):
                seen.append((private.current_graph_task_id(), private.current_autograd_node()))
                return gradient

        seen = []
        assert private.current_graph_task_id() == -1
        assert private.current_autograd_node() is None
        Look.apply(torch.ones(2, requires_grad=True)).sum().backward()
        ((task, node),) = seen
        assert task >= 0
        assert "Look" in type(node).__name__


def test_collating_goes_by_type():
    kinds = {
        **private.default_collate_fn_map,
        np.ndarray: lambda batch, *, collate_fn_map=None: len(batch),
    }
    batch = private.collate_by_type(
        [(torch.ones(2), np.zeros(1)), (torch.ones(2), np.zeros(1))], collate_fn_map=kinds
    )
    assert batch[0].shape == (2, 2)
    assert batch[1] == 2


def test_units_for_bf16_are_asked_for(monkeypatch):
    assert private.has_bf16_units() in (True, False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert private.has_bf16_units() is False


@pytest.mark.compiles
# Torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestCompiler:
    def test_settings_are_patched_and_put_back(self):
        for settings, name, value in (
            (private.functorch_settings(), "activation_memory_budget", 0.5),
            (private.inductor_settings(), "fallback_random", True),
            (private.dynamo_settings(), "recompile_limit", 99),
        ):
            before = getattr(settings, name)
            with settings.patch(**{name: value}):
                assert getattr(settings, name) == value
            assert getattr(settings, name) == before

    def test_graphs_are_compiled_with_and_without_autograd(self):
        module = nn.Linear(3, 2)
        values = torch.ones(4, 3)
        compiled = torch.compile(module, backend=private.compile_with_inductor)
        torch.testing.assert_close(compiled(values), module(values))
        traced = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
        with torch.no_grad():
            found = private.compile_graph(traced, [values - 2])(values - 2)
        torch.testing.assert_close(found, torch.zeros(4, 3))

    def test_a_backend_of_ones_own_gets_both_graphs(self):
        graphs = []

        def compiler(graph, inputs):
            graphs.append(copy.copy(graph))
            interpreter = torch.fx.Interpreter(graph)
            return private.takes_boxed_values(lambda values: interpreter.boxed_run(values))

        module = nn.Linear(3, 2)
        found = torch.compile(module, backend=private.aot_backend(compiler))(torch.ones(4, 3)).sum()
        found.backward()
        assert len(graphs) == 2
        torch.testing.assert_close(module.weight.grad, torch.full((2, 3), 4.0))


class TestScripts:
    def test_compiled_modules_are_known(self):
        plain, own = nn.Linear(2, 2), nn.Linear(2, 2)
        assert not private.is_compiled(plain)
        assert private.is_compiled(torch.compile(plain, backend="eager"))
        own.compile(backend="eager")
        assert private.is_compiled(own)

    def test_a_loader_keeps_forgets_and_tells_of_its_workers(self):
        data = torch.utils.data.TensorDataset(torch.zeros(12))
        loader = torch.utils.data.DataLoader(data, num_workers=1, persistent_workers=True)
        assert not private.has_workers(loader)
        batches = iter(loader)
        next(batches)
        assert private.has_workers(loader)
        assert private.is_half_read(loader)
        list(batches)
        assert not private.is_half_read(loader)  # held, and read to its end
        del batches
        next(iter(loader))
        assert not private.is_half_read(loader)  # left in the middle, by nobody held
        private.forget_workers(loader)
        assert not private.has_workers(loader)

    def test_steps_that_nobody_is_to_count(self):
        counted = []
        hook = register_optimizer_step_pre_hook(lambda *_: counted.append(1))
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        with private.step_hooks_suspended():
            optimizer.step()
        assert not counted
        optimizer.step()
        hook.remove()
        assert counted == [1]


def test_the_allocator_takes_settings():
    for settings in ("expandable_segments:True", "expandable_segments:False"):
        assert private.set_allocator(settings) == hasattr(
            torch._C, "_accelerator_setAllocatorSettings"
        )
