"""Operators in float64 where onnx's reference implementation works in float32, lacks one, or knows another version."""

from __future__ import annotations

import itertools
import math

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_grid_sample

erf = np.vectorize(math.erf, otypes=[np.float64])


class BatchNormalization(OpRun):
    op_domain = ""

    def _run(self, x, scale, bias, mean, variance, epsilon=None, momentum=None, spatial=None, training_mode=None):
        behind = (-1, *[1] * (x.ndim - 2))
        running = ()
        if training_mode:
            axes = (0, *range(2, x.ndim))
            own = x.mean(axis=axes), x.var(axis=axes)
            running = tuple(old * momentum + new * (1 - momentum) for old, new in zip((mean, variance), own))
            mean, variance = own
        normal = (x - mean.reshape(behind)) / np.sqrt(variance.reshape(behind) + epsilon)
        return (normal * scale.reshape(behind) + bias.reshape(behind), *running)


class Erf(OpRun):
    op_domain = ""

    def _run(self, x):
        return (erf(x),)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x, approximate=None):
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + erf(x / math.sqrt(2))),)


class GlobalLpPool(OpRun):
    op_domain = ""

    def _run(self, x, p=None):
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class LRN(OpRun):
    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        square = np.zeros_like(x)
        for c in range(x.shape[1]):
            low, high = max(0, c - (size - 1) // 2), min(x.shape[1], c + size // 2 + 1)
            square[:, c] = (x[:, low:high] ** 2).sum(axis=1)
        return (x / (bias + alpha / size * square) ** beta,)


class MeanVarianceNormalization(OpRun):
    op_domain = ""

    def _run(self, x, axes=None):
        axes = tuple(axes or (0, 2, 3))
        centred = x - x.mean(axis=axes, keepdims=True)
        return (centred / (np.sqrt((centred**2).mean(axis=axes, keepdims=True)) + 1e-9),)


class Pad(OpRun):
    op_domain = ""

    def _run(self, x, pads, value=None, axes=None, mode=None):
        axes = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
        for k, axis in enumerate(axes):
            begin, end = int(pads[k]), int(pads[len(pads) // 2 + k])
            cut = [slice(None)] * x.ndim
            cut[axis] = slice(max(-begin, 0), x.shape[axis] - max(-end, 0))
            width = [(0, 0)] * x.ndim
            width[axis] = (max(begin, 0), max(end, 0))
            options = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
            x = np.pad(x[tuple(cut)], width, mode=mode, **options)
        return (x,)


class ConvTranspose(OpRun):
    """Every input element times the kernel, added where it falls; pads cut off at the end."""

    op_domain = ""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, output_padding=None,
             output_shape=None, pads=None, strides=None):
        n = x.ndim - 2
        strides, dilations, extra = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
        begins, ends = (pads or [0] * (2 * n))[:n], (pads or [0] * (2 * n))[n:]
        full = [strides[i] * (x.shape[i + 2] - 1) + dilations[i] * (w.shape[i + 2] - 1) + 1 + extra[i] for i in range(n)]
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = output_shape or [x.shape[i + 2] * strides[i] for i in range(n)]
            total = [max(0, full[i] - output_shape[i]) for i in range(n)]
            ends, begins = [t // 2 for t in total], [t - t // 2 for t in total]
            if auto_pad == "SAME_UPPER":
                begins, ends = ends, begins
            full = [max(full[i], output_shape[i] + begins[i]) for i in range(n)]
        outputs = w.shape[1]
        y = np.zeros((x.shape[0], group * outputs, *full), x.dtype)
        inputs = x.shape[1] // group
        for g, k in itertools.product(range(group), np.ndindex(*w.shape[2:])):
            part = np.einsum("ni...,io->no...", x[:, g * inputs : (g + 1) * inputs], w[(slice(g * inputs, (g + 1) * inputs), slice(None), *k)])
            at = tuple(slice(k[i] * dilations[i], k[i] * dilations[i] + strides[i] * (x.shape[i + 2] - 1) + 1, strides[i]) for i in range(n))
            y[(slice(None), slice(g * outputs, (g + 1) * outputs), *at)] += part
        y = y[(slice(None), slice(None), *(slice(begins[i], full[i] - ends[i]) for i in range(n)))]
        return (y if b is None else y + b.reshape(-1, *[1] * n),)


class GroupNormalization(OpRun):
    """Scale and bias belong to the groups before operator set 21, then to the channels."""

    op_domain = ""

    def _run(self, x, scale, bias, epsilon=None, num_groups=None, stash_type=None):
        rows = x.reshape(x.shape[0], num_groups, -1)
        centred = rows - rows.mean(axis=2, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + epsilon)
        if len(scale) == num_groups != x.shape[1]:
            return ((normal * scale[:, None] + bias[:, None]).reshape(x.shape),)
        behind = (-1, *[1] * (x.ndim - 2))
        return (normal.reshape(x.shape) * scale.reshape(behind) + bias.reshape(behind),)


class LpNormalization(OpRun):
    op_domain = ""

    def _run(self, x, axis=None, p=None):
        return (x / (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p),)


def _softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


class Softmax(OpRun):
    """Before operator set 13 over all axes from `axis` on."""

    op_domain = ""

    def _run(self, x, axis=None):
        if self.run_params["opsets"][""] >= 13:
            return (_softmax(x, axis),)
        return (_softmax(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape),)


class LogSoftmax(Softmax):
    def _run(self, x, axis=None):
        return (np.log(super()._run(x, axis=axis)[0]),)


ACTIVATIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


class _Recurrent(OpRun):
    """All of RNN, LSTM and GRU, one sample and one step at a time, each over its own valid part of the sequence."""

    op_domain = ""

    def _of_all(self, usual, x, w, r, bias, lengths, states, p, activations, clip, direction, layout, cell):
        if layout:
            x, states = x.swapaxes(0, 1), [s if s is None else s.swapaxes(0, 1) for s in states]
        (steps, batch, _), (directions, _, hidden) = x.shape, r.shape
        bound = (lambda v: np.clip(v, -clip, clip)) if clip else (lambda v: v)
        names = [a.lower() for a in activations or [n for _ in range(directions) for n in usual]]
        y = np.zeros((steps, directions, batch, hidden))
        last = np.zeros((len(states), directions, batch, hidden))
        for d, n in itertools.product(range(directions), range(batch)):
            functions = [ACTIVATIONS[a] for a in names[d * len(usual) : (d + 1) * len(usual)]]
            bias_w, bias_r = np.split(bias[d], 2) if bias is not None else (np.zeros(len(w[d])), np.zeros(len(w[d])))
            state = [np.zeros(hidden) if s is None else s[d, n] for s in states]
            length = steps if lengths is None else int(lengths[n])
            order = range(length)
            for t in reversed(order) if direction == "reverse" or d else order:
                state = cell(x[t, n], state, w[d], r[d], bias_w, bias_r, None if p is None else p[d], functions, bound)
                y[t, d, n] = state[0]
            # Of an empty sequence the specification says nothing; this is what ONNX Runtime does.
            last[:, d, n] = state if length else 0
        if layout:
            y, last = y.transpose(2, 0, 1, 3), last.swapaxes(1, 2)
        return (y, *last)[: len(self.onnx_node.output)]


class RNN(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h=None, activation_alpha=None, activation_beta=None, activations=None, clip=None,
             direction=None, hidden_size=None, layout=None):
        def cell(x, state, w, r, bias_w, bias_r, p, f, bound):
            return [f[0](bound(w @ x + bias_w + r @ state[0] + bias_r))]

        return self._of_all(["tanh"], x, w, r, b, lengths, [h], None, activations, clip, direction, layout, cell)


class LSTM(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h=None, c=None, p=None, activation_alpha=None, activation_beta=None,
             activations=None, clip=None, direction=None, hidden_size=None, input_forget=None, layout=None):
        def cell(x, state, w, r, bias_w, bias_r, p, f, bound):
            h, c = state
            i, o, forget, g = np.split(w @ x + bias_w + r @ h + bias_r, 4)
            pi, po, pf = np.split(p, 3) if p is not None else (0, 0, 0)
            i = f[0](bound(i + pi * c))
            forget = 1 - i if input_forget else f[0](bound(forget + pf * c))
            c = forget * c + i * f[1](bound(g))
            return [f[0](bound(o + po * c)) * f[2](c), c]

        return self._of_all(["sigmoid", "tanh", "tanh"], x, w, r, b, lengths, [h, c], p, activations, clip, direction, layout, cell)


class GRU(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h=None, activation_alpha=None, activation_beta=None, activations=None, clip=None,
             direction=None, hidden_size=None, layout=None, linear_before_reset=None):
        def cell(x, state, w, r, bias_w, bias_r, p, f, bound):
            [h] = state
            (xz, xr, xn), (rz, rr, rn), (bz, br, bn) = (np.split(v, 3) for v in (w @ x + bias_w, r, bias_r))
            z, reset = f[0](bound(xz + rz @ h + bz)), f[0](bound(xr + rr @ h + br))
            late = reset * (rn @ h + bn) if linear_before_reset else rn @ (reset * h) + bn
            return [(1 - z) * f[1](bound(xn + late)) + z * h]

        return self._of_all(["sigmoid", "tanh"], x, w, r, b, lengths, [h], None, activations, clip, direction, layout, cell)


class GridSample(op_grid_sample.GridSample):
    """With coordinates in float64."""

    op_domain = ""

    def _gs_denormalize_coordinates(self, n, dims, align_corners):
        return np.array([self._gs_denormalize(v, dim, align_corners) for v, dim in zip(n, dims)])


class AffineGrid(OpRun):
    """In the type of theta."""

    op_domain = ""

    def _run(self, theta, size, align_corners=None):
        lengths = [int(n) for n in size[2:]]
        line = lambda n: np.linspace(-1, 1, n) if align_corners else (2 * np.arange(n) + 1) / n - 1
        axes = np.meshgrid(*(line(n) for n in lengths), indexing="ij")
        places = np.stack([*axes[::-1], np.ones(lengths)], axis=-1)
        return (np.einsum("...k,nck->n...c", places, theta),)


ALL = [AffineGrid, BatchNormalization, Erf, Gelu, GlobalLpPool, GridSample, GroupNormalization, LRN, LpNormalization, MeanVarianceNormalization, Pad, ConvTranspose, Softmax, LogSoftmax, RNN, LSTM, GRU]
