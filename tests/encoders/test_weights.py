import pytest
import torch
from safetensors.torch import save_file

from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.weights import load_strictly, read_weights


@pytest.fixture(scope="module")
def state():
    return load_encoder("timm/test_vit", pretrained=False).model.state_dict()


def renamed(state):
    return {name.replace("norm.weight", "norm.scale") if name == "norm.weight" else name: state[name] for name in state}


SPOILED = {
    "renamed": (renamed, r"missing norm\.weight.*unexpected norm\.scale"),
    "missing": (lambda state: {name: state[name] for name in state if name != "cls_token"}, "missing cls_token"),
    "extra": (lambda state: {**state, "head.weight": torch.zeros(2)}, r"unexpected head\.weight"),
    "misshapen": (lambda state: {**state, "cls_token": torch.zeros(1, 1, 63)}, r"cls_token is \(1, 1, 63\), should be"),
    "another model's": (lambda state: {f"module.{name}": state[name] for name in state}, "and [0-9]+ more"),
}


def write(state, file):
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_both_formats_load_into_equal_encoders(state, tmp_path, suffix):
    encoder = load_encoder("timm/test_vit", weights=write(state, tmp_path / f"weights{suffix}"))
    loaded = encoder.model.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    assert encoder.license is None and not encoder.training


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("case", SPOILED)
def test_weights_that_do_not_fit_are_refused_by_name(state, tmp_path, case, suffix):
    spoil, says = SPOILED[case]
    file = write(spoil(state), tmp_path / f"weights{suffix}")
    with pytest.raises(ValueError, match=says) as refusal:
        load_encoder("timm/test_vit", weights=file)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("case", SPOILED)
def test_so_are_those_of_a_saved_run(state, tmp_path, case):
    folder = save_encoder(load_encoder("timm/test_vit", pretrained=False), tmp_path / "model")
    spoil, says = SPOILED[case]
    write(spoil(state), folder / "model.safetensors")
    with pytest.raises(ValueError, match=says):
        load_encoder(f"run/{folder}")


def test_refused_weights_leave_the_module_as_it_was():
    module = torch.nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(ValueError, match="missing bias"):
        load_strictly(module, {"weight": torch.zeros(2, 2)}, "a file")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:100], lambda raw: b"\0" * len(raw)])
def test_a_damaged_file_is_named(state, tmp_path, suffix, damage):
    file = write(state, tmp_path / f"weights{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f"weights{suffix} cannot be read"):
        read_weights(file)


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"weight": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"model": {"weight": torch.zeros(1)}}, [torch.zeros(1)], torch.zeros(1)])
def test_something_else_than_a_flat_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "nested.pt")
    with pytest.raises(ValueError, match="flat dict"):
        read_weights(tmp_path / "nested.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_encoder("timm/test_vit", weights=tmp_path / "nowhere.pt")
