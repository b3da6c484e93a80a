"""Networks that want BGR get it, whoever says so; pictures, means and stds are RGB everywhere."""

import json

import pytest
import torch
import zoo_hf
from test_onnx_source import build
from torch import nn

from eyespot.deploy.graph import exportable
from eyespot.encoders import HeadedEncoder, load_encoder, save_encoder
from eyespot.encoders.identity import identity
from eyespot.randomness import torch_generator

IMAGES = torch.rand(2, 3, 64, 64, generator=torch_generator("channel_order"))
STATISTICS = "mean=0.1,0.2,0.3&std=0.5,0.6,0.7"
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))


@pytest.fixture(scope="module")
def mobilevit(tmp_path_factory):
    """A folder of the family that Apple trained on BGR, and what transformers makes of it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("mobilevit")
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [144, 192, 240], "neck_hidden_sizes": [16, 32, 64, 96, 128, 160, 640]}
    model = transformers.MobileViTModel(transformers.MobileViTConfig(image_size=64, **sizes)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    model.save_pretrained(folder)
    side = {"height": 64, "width": 64}
    transformers.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size=side).save_pretrained(folder)

    def summary(images):
        with torch.no_grad():
            return model(pixel_values=images).pooler_output

    return folder, summary


def summary_of(encoder, images=IMAGES):
    with torch.no_grad():
        return encoder(images).summary


def test_what_the_processor_says_is_done(mobilevit):
    folder, model = mobilevit
    declared = load_encoder(f"hf/{folder}")
    assert declared.channel_order == "bgr"
    torch.testing.assert_close(summary_of(declared), model(IMAGES.flip(1)))
    stated = load_encoder(f"hf/{folder}?{STATISTICS}")
    torch.testing.assert_close(summary_of(stated), model(((IMAGES - MEAN) / STD).flip(1)))
    overruled = load_encoder(f"hf/{folder}?channel_order=rgb")
    torch.testing.assert_close(summary_of(overruled), model(IMAGES))
    assert identity(declared)["weights"] != identity(overruled)["weights"]
    with pytest.raises(ValueError, match="channel_order is rgb or bgr, not 'grb'"):
        load_encoder(f"hf/{folder}?channel_order=grb")


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_both_layouts_of_the_file_say_it(mobilevit, flips, nested, tmp_path):
    folder, _ = mobilevit
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    stated = {**json.loads((folder / "preprocessor_config.json").read_text()), "do_flip_channel_order": flips}
    file = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / file).write_text(json.dumps({"image_processor": stated} if nested else stated))
    assert load_encoder(f"hf/{tmp_path}").channel_order == ("bgr" if flips else "rgb")
    stated["image_processor_type"] = "NoSuchProcessor"
    (tmp_path / file).write_text(json.dumps({"image_processor": stated} if nested else stated))
    assert load_encoder(f"hf/{tmp_path}?{STATISTICS}").channel_order == ("bgr" if flips else "rgb")


def onnx_spec(folder):
    return f"onnx/{build(folder / 'a.onnx')}?{STATISTICS}"


def timm_spec(folder):
    return "timm/test_resnet?pretrained=false"


def hf_spec(folder):
    zoo_hf.write_model("dinov2", folder)
    return f"hf/{folder}?{STATISTICS}"


@pytest.mark.parametrize("spec_of", [onnx_spec, timm_spec, hf_spec])
def test_the_option_is_one_for_all_sources(spec_of, tmp_path):
    spec = spec_of(tmp_path)
    torch.manual_seed(0)
    plain = load_encoder(spec)
    torch.manual_seed(0)
    turned = load_encoder(f"{spec}&channel_order=bgr")
    fed = ((IMAGES - plain.mean) / plain.std).flip(1) * plain.std + plain.mean
    plain._range_checked_on = None
    plain.check = lambda images: None
    torch.testing.assert_close(summary_of(turned), summary_of(plain, fed), rtol=1e-4, atol=1e-4)
    assert identity(turned)["weights"] != identity(plain)["weights"]
    assert "channel_order=bgr" in turned.name


@pytest.mark.parametrize("headed", [False, True])
def test_saved_models_and_graphs_keep_it(headed, tmp_path):
    encoder = load_encoder("timm/test_resnet?pretrained=false&channel_order=bgr")
    if headed:
        encoder = HeadedEncoder(encoder, 2).eval()
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(f"run/{tmp_path}/saved")
    assert again.channel_order == "bgr"
    torch.testing.assert_close(summary_of(again), summary_of(encoder))
    with torch.no_grad():
        torch.testing.assert_close(exportable(encoder)(IMAGES)[0], summary_of(encoder), rtol=1e-4, atol=1e-4)
        inner = encoder.intermediates(IMAGES, [1])[0]
    encoder.set_channel_order("rgb")
    assert not torch.equal(inner, encoder.intermediates(IMAGES, [1])[0])


@pytest.mark.parametrize("mean", ["0.406,0.456,0.485", "0.40821073,0.4578275,0.48145466"])
def test_a_mean_in_the_order_of_caffe_is_refused(mean, tmp_path):
    with pytest.raises(ValueError, match=r"blue, green, red.*mean=0\.48.*channel_order=bgr"):
        load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}?mean={mean}&std=0.2,0.2,0.2")
