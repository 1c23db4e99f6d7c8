"""Findings of a review, each as a test."""

import numpy as np

import nets


def test_strip_to_a_device_judges_the_bytes_that_it_sent(per_inject, tmp_path):
    plain, injected = tmp_path / "plain.onnx", tmp_path / "injected.onnx"
    plain.write_bytes(nets.trained(np.ones((1, 1), np.float32)).SerializeToString())
    per_inject(plain, "--layers", "tensor:h", "--as-output", "-o", injected)
    assert "byte for byte" in per_inject("strip", injected, "-o", "/dev/null").stdout
