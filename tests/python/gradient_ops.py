"""Operators in float64 for the gradients of ONNX's operator tests, beyond those of reference_ops."""

from __future__ import annotations

import numpy as np
import ort
import reference_ops
from onnx import helper
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_max_pool, op_resize, op_scatter_elements


class Dropout(OpRun):
    """With the same mask every time, whoever draws it: a gradient is that of one mask."""

    op_domain = ""

    def _run(self, x, ratio=None, training_mode=None, seed=None):
        ratio = np.asarray(0.5 if ratio is None else ratio, np.float64)
        if not training_mode:
            return (x, np.ones(x.shape, bool))[: max(1, len(self.onnx_node.output))]
        mask = np.random.default_rng(1).uniform(size=x.shape) >= ratio
        y = x * mask / (1 - ratio) if ratio < 1 else np.zeros_like(x)
        return (y, mask)[: max(1, len(self.onnx_node.output))]


class Scatter(op_scatter_elements.ScatterElements):
    """What ScatterElements was called before operator set 11."""

    op_domain = ""

    def _run(self, data, indices, updates, axis=None, reduction=None):
        return super()._run(data, indices, updates, axis=axis, reduction="none")


class Scan(OpRun):
    """Over the first axis, backwards too, which the reference implementation refuses."""

    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(self, *args, context=None, body=None, num_scan_inputs=None, scan_input_directions=None, scan_output_directions=None,
             scan_input_axes=None, scan_output_axes=None, attributes=None, bindings=None):
        assert not any(scan_input_axes or ()) and not any(scan_output_axes or ())
        count = len(args) - num_scan_inputs
        states, scanned = list(args[:count]), args[count:]
        ins = scan_input_directions or [0] * num_scan_inputs
        scanned = [x[::-1] if back else x for x, back in zip(scanned, ins)]
        names = self.body.input_names
        steps = []
        for t in range(len(scanned[0])):
            feeds = {**(context or {}), **dict(zip(names, [*states, *(x[t] for x in scanned)]))}
            made = self._run_body(feeds, bindings=bindings)
            states = list(made[:count])
            steps.append(made[count:])
        results = [np.stack(column) for column in zip(*steps)]
        outs = scan_output_directions or [0] * len(results)
        return (*states, *(y[::-1] if back else y for y, back in zip(results, outs)))


class Loop(OpRun):
    """With what its steps make stacked, scalars too, and any number of carried values."""

    op_domain = ""

    def need_context(self) -> bool:
        return True

    def _run(self, trips, condition, *carried, context=None, body=None, attributes=None, bindings=None):
        count, steps = len(carried), []
        names = self.body.input_names
        condition = True if condition is None else condition
        while condition and (trips is None or len(steps) < trips):
            own = [np.array(len(steps), np.int64), np.asarray(condition), *carried]
            condition, *made = self._run_body({**(context or {}), **dict(zip(names, own))}, bindings=bindings)
            carried = made[:count]
            steps.append(made[count:])
        return (*carried, *(np.stack(column) for column in zip(*steps)))


class MaxPool(op_max_pool.MaxPool):
    """With its second output from ONNX Runtime: for strides of 1 the reference implementation's names other places than the maximum's."""

    op_domain = ""

    def _run(self, x, **attributes):
        if len(self.onnx_node.output) == 1:
            return super()._run(x, **attributes)
        value = lambda name, array: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array), None)
        inputs = [value(self.onnx_node.input[0], x.dtype)]
        outputs = [value(name, dtype) for name, dtype in zip(self.onnx_node.output, (x.dtype, np.dtype(np.int64)))]
        opsets = [helper.make_opsetid("", self.run_params["opsets"][""])]
        model = helper.make_model(helper.make_graph([self.onnx_node], "pool", inputs, outputs), opset_imports=opsets, ir_version=8)
        y, places = ort.session(model, "disabled").run(None, {self.onnx_node.input[0]: x})
        return y, places


class Resize(op_resize.Resize):
    """With the coefficient of a cubic as a float64, as which the reference implementation does not read the attribute."""

    op_domain = ""

    def _run(self, *inputs, cubic_coeff_a=None, **attributes):
        return super()._run(*inputs, cubic_coeff_a=float(cubic_coeff_a), **attributes)


class Mean(OpRun):
    """Of operands that broadcast."""

    op_domain = ""

    def _run(self, *operands):
        return (sum(operands) / len(operands),)


ALL = [*reference_ops.ALL, Dropout, Loop, MaxPool, Mean, Resize, Scan, Scatter]

# Operators that ONNX Runtime does not compute in float64, or that draw random numbers, other ones in every runtime.
NOT_BY_RUNTIME = {"Dropout", "GRU", "LSTM", "RNN"}
