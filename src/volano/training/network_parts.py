"""The parts of a network, and how many of their parameters are trained."""

from __future__ import annotations

from torch import nn

from volano.plan.network import NetworkPart

# Of more parts the last ones are taken together.
_MOST_PARTS = 12


def network_parts(model: nn.Module) -> tuple[NetworkPart, ...]:
    """Returns the outermost parts of a model that have parameters, each parameter once; a module
    that holds nothing but another one is passed over."""
    prefix, module = "", model
    while not _own(module):
        inside = _with_parameters(module)
        if len(inside) != 1:
            break
        ((name, module),) = inside
        prefix += f"{name}."
    inside = _with_parameters(module)
    seen: set[nn.Parameter] = set()
    parts = [_part(f"{prefix}{name}", child, [*child.parameters()], seen) for name, child in inside]
    own = _own(module)
    if own:
        parts.insert(0, _part(prefix.rstrip("."), module, own, seen))
    return tuple(parts) if len(parts) <= _MOST_PARTS else _shortened(parts)


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (n, child) for n, child in module.named_children() if any(True for _ in child.parameters())
    ]


def _part(
    name: str, module: nn.Module, parameters: list[nn.Parameter], seen: set[nn.Parameter]
) -> NetworkPart:
    own = [parameter for parameter in dict.fromkeys(parameters) if parameter not in seen]
    seen.update(own)
    return NetworkPart(
        name=name or "the model", module=type(module).__name__,
        parameters=sum(p.numel() for p in own),
        trained=sum(p.numel() for p in own if p.requires_grad),
    )  # fmt: skip


def _shortened(parts: list[NetworkPart]) -> tuple[NetworkPart, ...]:
    first, rest = parts[: _MOST_PARTS - 1], parts[_MOST_PARTS - 1 :]
    more = NetworkPart(
        name=f"{len(rest)} more", module="", parameters=sum(p.parameters for p in rest),
        trained=sum(p.trained for p in rest),
    )  # fmt: skip
    return (*first, more)
