"""The cuts at every budget are those that are made one by one."""

import pytest
import torch

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.budget_cut import closed_form, prune_to_budget
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.every_budget import cut_at_every_percent

GRAPH = unexpanded_graph(ModelSpec(name="resnet20"))
EXPANDED = GRAPH.expanded(1.25)


@pytest.mark.parametrize("metric", ["macs", "params", "latency"])
@pytest.mark.parametrize("rules", [CutRules(), CutRules(block=16), CutRules(4, 0.5, 8)], ids=str)
def test_every_percent_is_cut_as_the_extraction_cuts_it(metric, rules):
    generator = torch.Generator().manual_seed(rules.block)
    gates = {group.name: torch.rand(EXPANDED[group.name], generator=generator) for group in GRAPH.prunable()}
    model = closed_form(GRAPH, "macs" if metric == "latency" else metric)
    found = cut_at_every_percent(GRAPH, gates, EXPANDED, metric, rules, model)
    assert list(found) == list(range(min(found), 101))
    for percent in range(1, 101):
        arguments = GRAPH, gates, Budget(metric=metric, target=percent / 100), EXPANDED, rules, model
        if percent in found:
            assert found[percent] == prune_to_budget(*arguments)[0]
        else:
            with pytest.raises(UserError, match="cannot be reached"):
                prune_to_budget(*arguments)
