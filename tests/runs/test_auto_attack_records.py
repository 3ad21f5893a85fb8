"""AutoAttack through `evaluate` and the command line: records that say what ran and what it cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hf_hierrobust import AutoAttack, evaluate
from hf_hierrobust.cli.options import registered

STEPS = {"num_steps": 4}
OPTIONS = {"apgd": STEPS, "apgd-t": STEPS, "fab-t": STEPS, "square": {"num_queries": 30}}


class Corners(nn.Module):
    """Twelve classes by three channel means; notes whether it runs under autocast."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 12)
        with torch.no_grad():
            self.head.weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(40)
            self.head.bias.copy_(-0.5 * self.head.weight.sum(1))
        self.seen = set()

    def forward(self, pixels):
        self.seen.add(torch.is_autocast_enabled("cpu"))
        return self.head(pixels.mean((2, 3)))


@pytest.fixture
def net():
    return Corners()


@pytest.fixture
def data(net):
    pixels = torch.rand(24, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 8, 8)
    pixels = (pixels * 255).round().to(torch.uint8)
    with torch.no_grad():
        labels = net(pixels / 255).argmax(1)
    net.seen.clear()
    return TensorDataset(pixels, labels)


def test_the_suite_and_the_list_give_the_same_record(net, data):
    options = {**STEPS, **OPTIONS["square"], "progress": False}
    (by_name,) = evaluate(net, data, attack="autoattack", eps="16/255", **options)
    listed = AutoAttack([type(a)(**OPTIONS[a.name]) for a in AutoAttack()], eps="16/255")
    (by_list,) = evaluate(net, data, attack=listed, progress=False)
    assert by_name.attack["name"] == "apgd+apgd-t+fab-t+square"
    assert [one["name"] for one in by_name.attack["attacks"]] == list(OPTIONS)
    assert (by_list.flags, by_list.cost) == (by_name.flags, by_name.cost)
    stages = [by_name.checks[f"robust_after_{name}"] for name in OPTIONS]
    assert stages == sorted(stages, reverse=True) and stages[-1] == pytest.approx(by_name.robust_accuracy)
    assert 0 < by_name.robust_accuracy < by_name.clean_accuracy == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_the_search_may_be_cheaper_and_fp32_judges(net, data, name):
    options = {**OPTIONS[name], "progress": False}
    (plain,) = evaluate(net, data, attack=name, eps="16/255", bf16_search=False, **options)
    assert net.seen == {False}
    (record,) = evaluate(net, data, attack=name, eps="16/255", bf16_search=True, **options)
    assert net.seen == {True, False} and record.attack["search_dtype"] == "bfloat16"
    assert record.robust_accuracy == pytest.approx(plain.robust_accuracy, abs=0.1)


def test_the_command_line_knows_the_names():
    names = {"autoattack", "autoattack-plus", "autoattack-rand", "apgd-ce+t", "pgd-20"}
    assert names | {"apgd", "apgd-t", "fab", "fab-t", "square"} <= {*registered()["eval_attack"]}
