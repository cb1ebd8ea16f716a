"""A second opinion for small problems: dense Newton in float64, written without the code under test."""

import numpy as np


def objective(X, Y, W, b, l2_lambda, sigmoid):
    """J of (n, K) targets in {0, 1, -1 = ignored}; softmax unless sigmoid."""
    Z = X @ W.T + b
    if sigmoid:
        losses = np.where(Y == 1, np.logaddexp(0, -Z), np.logaddexp(0, Z))
        loss = losses[Y >= 0].sum()
    else:
        true = Z[Y == 1][:, None]
        loss = np.log1p(np.where(Y == 1, 0, np.exp(Z - true)).sum(axis=1)).sum()
    return loss + l2_lambda / 2 * (W**2).sum()


def optimum(X, Y, l2_lambda, sigmoid, steps=200):
    """Return (W, b, J) at the minimum: damped Newton on the dense Hessian until it stops moving."""
    n, d = X.shape
    K = Y.shape[1]
    A = np.hstack([X, np.ones((n, 1))])
    ridge = np.tile(np.append(np.full(d, l2_lambda), 0.0), K)
    theta = np.zeros(K * (d + 1))

    def value(theta):
        W = theta.reshape(K, d + 1)
        return objective(X, Y, W[:, :d], W[:, d], l2_lambda, sigmoid)

    for _ in range(steps):
        Z = A @ theta.reshape(K, d + 1).T
        H = np.diag(ridge)
        if sigmoid:
            P = 0.5 * (1 + np.tanh(Z / 2))
            R = np.where(Y >= 0, P - Y, 0)
            D = np.where(Y >= 0, P * (1 - P), 0)
            for k in range(K):
                s = slice(k * (d + 1), (k + 1) * (d + 1))
                H[s, s] += A.T @ (D[:, k, None] * A)
        else:
            E = np.exp(Z - Z.max(axis=1, keepdims=True))
            P = E / E.sum(axis=1, keepdims=True)
            R = P - Y
            for j in range(K):
                for k in range(K):
                    weight = P[:, j] * ((j == k) - P[:, k])
                    H[j * (d + 1) : (j + 1) * (d + 1), k * (d + 1) : (k + 1) * (d + 1)] += A.T @ (
                        weight[:, None] * A
                    )
        g = (R.T @ A).ravel() + ridge * theta
        step = -np.linalg.lstsq(H, g, rcond=1e-14)[0]
        t = 1.0
        while value(theta + t * step) > value(theta) and t > 1e-8:
            t /= 2
        if t <= 1e-8 or -g @ step < 1e-14 * value(theta):
            break
        theta = theta + t * step
    W = theta.reshape(K, d + 1)
    return W[:, :d], W[:, d], value(theta)


def one_hot(labels, K):
    return (labels[:, None] == np.arange(K)).astype(np.int8)
