"""RAdam that looks back: Ranger."""

from collections.abc import Callable
from typing import Any

import torch

from finetune.optim.eager import EagerRAdam
from finetune.optim.multi_tensor import learning

EVERY, SHARE = 6, 0.5


class Ranger(EagerRAdam):
    """RAdam inside Lookahead (Wright, 2019; Liu et al., 2020; Zhang, Lucas, Hinton and Ba, 2019).

    After every 6 steps slow weights, which start where the weights do, go half way to the weights, and the
    weights go on from there.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step of RAdam, and look back after every sixth."""
        starts = {
            parameter: parameter.clone()
            for group in self.param_groups
            for parameter in learning(group)
            if not self.state[parameter]
        }
        loss = super().step(closure)
        # Only now: torch would take a state that holds anything for one that is complete.
        for parameter, start in starts.items():
            self.state[parameter]["slow_weights"] = start
        for group in self.param_groups:
            due = [p for p in learning(group) if int(self.state[p]["step"]) % EVERY == 0]
            if due:
                slow = [self.state[parameter]["slow_weights"] for parameter in due]
                torch._foreach_lerp_(slow, due, SHARE)
                torch._foreach_copy_(due, slow)
        return loss
