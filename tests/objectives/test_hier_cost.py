"""The hierarchical loss never builds a tensor of size images x nodes x width, forwards or backwards."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling import HierHead
from hf_hierrobust.objectives import HierRobust, Targets, View

BATCH, CLASSES, DIM = 32, 60, 64


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.numel())
        return out


def test_the_largest_tensor_is_a_matrix():
    paths = {f"class {i}": [f"group {i // 3}", f"kind {i // 12}"] for i in range(CLASSES)}
    objective = HierRobust(intra_gap="both")
    objective.setup(list(paths), Forest((LabelTree.from_paths(paths, name="t"),)))
    nodes = len(objective.nodes.names)
    torch.manual_seed(0)
    head, labels = HierHead(DIM), torch.arange(BATCH) % CLASSES
    features = torch.randn(BATCH, DIM, requires_grad=True), torch.randn(nodes, DIM, requires_grad=True)
    head.calibrate(features[0].detach(), features[1].detach()[:CLASSES], labels, 100.0)
    tangents = head.image_tangent(features[0]), head.text_tangent(features[1])
    view = View(*features, *tangents, torch.tensor(100.0), head, torch.zeros(nodes, DIM, requires_grad=True))
    with LargestTensor() as seen:
        torch.autograd.grad(objective.inner_loss(view, Targets(labels)).sum(), [features[0], view.text_delta])
        tangents = head.image_tangent(features[0]), head.text_tangent(features[1])
        view = view._replace(image_tangent=tangents[0], text_tangent=tangents[1])
        sum(objective.loss([view], Targets(labels)).values()).backward()
    assert seen.numel >= BATCH * CLASSES, "nothing was recorded"
    assert seen.numel <= 2 * max(BATCH, nodes) * max(nodes, DIM) < BATCH * CLASSES * DIM
