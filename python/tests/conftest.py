"""What the tests of the package share. They run against an installed wheel; PER_INJECT names the program it is compared with."""

import os
import pathlib
import subprocess

import onnx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
PROGRAM = os.environ.get("PER_INJECT", str(ROOT / "target" / "debug" / "per-inject"))


def program(*arguments, check=True, **options):
    """Runs the program as a person does, without what their environment may ask of it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PER_INJECT")}
    run = subprocess.run(
        [PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, env=environment, **options
    )
    assert run.returncode == 0 or not check, run.stderr.decode()
    return run


class Kind:
    """One of the kinds in which a model comes and goes."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    def give(self, path):
        """The model in that file as this kind."""
        path = pathlib.Path(path)
        return {
            "str": lambda: str(path),
            "path": lambda: path,
            "bytes": path.read_bytes,
            "bytearray": lambda: bytearray(path.read_bytes()),
            "proto": lambda: onnx.load(path, load_external_data=False),
        }[self.name]()

    def options(self):
        """What an edit of this kind wants besides."""
        return {"output": self.folder / "edited.onnx"} if self.name in ("str", "path") else {}

    def take(self, result):
        """The bytes of a result, which must be of this kind."""
        expected = {"str": str, "path": pathlib.PosixPath, "bytes": bytes, "bytearray": bytearray, "proto": onnx.ModelProto}
        assert type(result) is expected[self.name]
        if self.name in ("str", "path"):
            assert pathlib.Path(result) == self.folder / "edited.onnx"
            return pathlib.Path(result).read_bytes()
        return result.SerializeToString(deterministic=True) if self.name == "proto" else bytes(result)

    def same(self, data):
        """What the program wrote, as this kind would hold it: protobuf may order fields in its own way."""
        return onnx.load_from_string(data).SerializeToString(deterministic=True) if self.name == "proto" else data


@pytest.fixture(params=["str", "path", "bytes", "bytearray", "proto"])
def kind(request, tmp_path):
    return Kind(request.param, tmp_path)
