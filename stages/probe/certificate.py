"""How far a solution may lie from its optimum: two certificates in float64 on the original features.

With J(W, b) = sum of losses + (l2_lambda / 2) ||W||^2 and J strongly convex in W once b is minimised out,

    bound    = J(W, b) - J(W, b*) + ||g_W(W, b*)||^2 / (2 l2_lambda),   b* = argmin over b of J(W, .)
    estimate = (1/2) g' H^-1 g at (W, b), the Newton decrement by conjugate gradients

where g_W(W, b*) is the gradient by W; the bound is the duality gap and holds always (protocol, "The
certificate"). Multi-label outputs are separate problems at one lambda: their figures add up.
"""

from __future__ import annotations
