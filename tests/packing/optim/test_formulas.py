"""The formulas of updates keep what torch's optimizers keep, under the same names."""

import functools

import numpy as np
import pytest
import torch

from volano.packing.optim.formulas import FORMULAS

OPTIONS = {
    "SGD": {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
    "Adam": {"weight_decay": 0.1},
    "AdamW": {},
}
FIXED = {"SGD": {"nesterov": False}}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_steps_of_a_formula_are_two_steps_of_torchs(name):
    formula, made = (
        FORMULAS[name],
        functools.partial(getattr(torch.optim, name), lr=0.05, **OPTIONS[name]),
    )
    parameter = torch.linspace(-1, 1, 6, dtype=torch.float64).requires_grad_()
    optimizer = made([parameter])
    group = optimizer.param_groups[0]
    beta1, beta2 = group.get("betas", (0.0, 0.0))
    own = {
        "beta1": beta1,
        "beta2": beta2,
        **{key: group.get(key, 0.0) for key in ("weight_decay", "momentum", "dampening", "eps")},
    }
    options = {key: np.array([value, value]) for key, value in own.items()}
    mine, state = (
        parameter.detach().clone().expand(2, -1),
        tuple(torch.zeros(2, 6, dtype=torch.float64) for _ in formula.state),
    )
    for step in range(2):
        gradient = torch.cos(torch.arange(6, dtype=torch.float64) + step)
        rows = formula.rows(
            options, np.array([0.05, 0.05]), np.array([step, step], dtype=np.float64)
        )
        mine, state = formula.update(
            mine,
            gradient.expand(2, -1),
            state,
            {key: torch.tensor(row).view(2, 1) for key, row in rows.items()},
            FIXED.get(name, {}),
        )
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(mine[1], parameter.detach(), rtol=1e-12, atol=0)
    for part, whole in zip(formula.state, state, strict=True):
        torch.testing.assert_close(whole[0], optimizer.state[parameter][part], rtol=1e-12, atol=0)
