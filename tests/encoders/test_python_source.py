import pytest
import torch

from eyespot.encoders import load_encoder

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from eyespot import Encoder, Features

@dataclass
class Settings:
    width: int = 4

class Own(Encoder):
    def __init__(self, settings: Settings):
        super().__init__(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.summary_dim, self.patch_dim = 3, settings.width
        self.stride, self.default_size = 8, (32, 32)

    def _encode(self, images):
        maps = torch.nn.functional.avg_pool2d(images, 8)
        return Features(maps.mean((2, 3)), maps[:, :1].expand(-1, self.patch_dim, -1, -1))

def make(width=4):
    return Own(Settings(width))

def not_an_encoder():
    return torch.nn.Linear(2, 2)

def forgetful():
    encoder = make()
    del encoder.stride, encoder.default_size
    return encoder

number = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_eyes.py").write_text(GOOD)
    return tmp_path


def check(encoder, spec):
    assert encoder.name == spec
    assert (encoder.native_size, encoder.license) == (None, None)
    images = torch.rand(2, 3, 16, 24)
    features = encoder(images)
    assert features.summary.shape == (2, 3) and features.patches.shape == (2, 4, 2, 3)
    torch.testing.assert_close(features.summary, (images.mean((2, 3)) - 0.5) / 0.5)
    with pytest.raises(ValueError, match="multiples of 8"):
        encoder(torch.rand(1, 3, 20, 16))
    with pytest.raises(ValueError, match="divide by 255"):
        encoder(images * 255)
    with pytest.raises(NotImplementedError, match="own_eyes"):
        encoder.intermediates(images, [0])


def test_an_absolute_file(folder):
    spec = f"python/{folder / 'own_eyes.py'}:make"
    check(load_encoder(spec), spec)


def test_a_relative_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    check(load_encoder("python/own_eyes.py:make"), "python/own_eyes.py:make")


def test_a_dotted_module(folder, monkeypatch):
    (folder / "package_of_eyes").mkdir()
    (folder / "own_eyes.py").rename(folder / "package_of_eyes" / "own_eyes.py")
    monkeypatch.syspath_prepend(str(folder))
    check(load_encoder("python/package_of_eyes.own_eyes:make"), "python/package_of_eyes.own_eyes:make")


def test_two_files_of_one_name_stay_apart(folder):
    (folder / "b").mkdir()
    (folder / "b" / "own_eyes.py").write_text(GOOD.replace("width: int = 4", "width: int = 4\n    extra: int = 0"))
    one = load_encoder(f"python/{folder / 'own_eyes.py'}:make?width=2")
    other = load_encoder(f"python/{folder / 'b' / 'own_eyes.py'}:make?width=5")
    assert (one.patch_dim, other.patch_dim) == (2, 5)
    assert type(one).__module__ != type(other).__module__


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("own_eyes.py", ValueError, "factory"),
        ("own_eyes.py:nobody", ValueError, "no 'nobody'"),
        ("nowhere.py:make", FileNotFoundError, "nowhere.py"),
        ("nowhere_at_all.eyes:make", ModuleNotFoundError, "nowhere_at_all"),
        ("own_eyes.py:not_an_encoder", TypeError, "Linear"),
        ("own_eyes.py:forgetful", TypeError, "set stride, default_size"),
        ("own_eyes.py:make?depth=3", ValueError, "depth"),
    ],
)
def test_mistakes_are_named(folder, monkeypatch, target, error, says):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=says):
        load_encoder(f"python/{target}")


def test_a_normalisation_takes_three_numbers(folder):
    from eyespot.encoders import Encoder

    class Odd(Encoder):
        def _encode(self, images):
            raise NotImplementedError

    with pytest.raises(ValueError, match="three numbers"):
        Odd(mean=(0.5,), std=(0.5, 0.5, 0.5))
