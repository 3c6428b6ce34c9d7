"""Torch-Pruning on the ResNet-56 of the benchmarks: the channels of all layers, to half the MACs.

The network is rebuilt in torch from the ONNX file, whose BatchNorms the exporter has folded, so
that both tools start from the same weights.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
import torch_pruning
from nets import CifarResNet
from onnx import numpy_helper
from torch import nn
from train import export


def unfolded(path: Path, classes: int = 10, blocks: int = 9) -> nn.Module:
    """The network with the weights of an ONNX file; where BatchNorms were there are biases."""
    graph = onnx.load(path).graph
    arrays = {
        each.name: torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in graph.initializer
    }
    biases = {n.input[1]: n.input[2] for n in graph.node if n.op_type in ("Conv", "Gemm")}
    net = CifarResNet(classes, blocks)
    for label, module in dict(net.named_modules()).items():
        if isinstance(module, nn.BatchNorm2d):
            net.get_submodule(label.rpartition(".")[0])[1] = nn.Identity()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            weight = f"{label}.weight"
            module.weight.data = arrays[weight]
            module.bias = nn.Parameter(arrays[biases[weight]])
    return net.eval()


def prune(path: Path, out: Path, sparsity: float) -> tuple[int, int]:
    """Write what Torch-Pruning leaves of the network in ``path``; its MACs before and after.

    Channels of the whole network are ranked against each other (``global_pruning``) and removed
    in small steps until the share ``sparsity`` of the MACs is gone. The file is not trained.
    """
    net, image = unfolded(path), torch.zeros(1, 3, 32, 32)
    before, _ = torch_pruning.utils.count_ops_and_params(net, image)
    pruner = torch_pruning.pruner.MetaPruner(
        net,
        image,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=400,
        max_pruning_ratio=0.8,
        ignored_layers=[net.classifier],
    )
    after = before
    while after > (1 - sparsity) * before:
        pruner.step()
        after, _ = torch_pruning.utils.count_ops_and_params(net, image)
    export(net, out)
    return int(before), int(after)
