from dataclasses import asdict

import pytest

from volano.plan.network import NetworkFigures, NetworkPart

FIGURES = NetworkFigures(
    parts=(NetworkPart(name="trunk", module="Net", parameters=9, trained=0),),
    frozen="what it computes is kept", saved_seconds=1.5, is_measured=True,
)  # fmt: skip


def test_json_and_back():
    assert NetworkFigures.from_json(asdict(FIGURES)) == FIGURES
    with pytest.raises(TypeError):
        NetworkFigures.from_json({**asdict(FIGURES), "more": 1})
