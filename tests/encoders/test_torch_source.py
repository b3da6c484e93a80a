import pytest
import torch

from eyespot.deploy import export
from eyespot.encoders import load_encoder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    model = load_encoder("timm/test_vit?pretrained=false&license=mit")
    return export(
        model, "torch", tmp_path_factory.mktemp("out") / "a", image_size=32, batch=2, say=lambda text: None
    ).file


def test_a_program_is_an_encoder(file):
    encoder = load_encoder(f"torch/{file}")
    assert (encoder.native_size, encoder.stride, encoder.license) == ((32, 32), 16, "mit")
    images = torch.rand(5, 3, 32, 32)
    together, alone = encoder(images), encoder(images[:1])
    torch.testing.assert_close(together.summary[:1], alone.summary, rtol=1e-4, atol=1e-5)
    assert together.patches.shape == (5, encoder.patch_dim, 2, 2)
    assert not together.summary.requires_grad


def test_threads_are_those_of_torch(file):
    before = torch.get_num_threads()
    try:
        load_encoder(f"torch/{file}?threads=3")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="torch//path"):
        load_encoder("torch/nowhere.pt2")
    (tmp_path / "broken.pt2").write_bytes(b"PK no program")
    with pytest.raises(ValueError, match=r"broken\.pt2 cannot be read"):
        load_encoder(f"torch/{tmp_path}/broken.pt2")
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.rand(1, 3, 8, 8),)), tmp_path / "foreign.pt2")
    with pytest.raises(ValueError, match="not written by eyespot"):
        load_encoder(f"torch/{tmp_path}/foreign.pt2")
