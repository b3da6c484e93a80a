import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.encoders import load_encoder
from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.probing.live_probe import LiveConfig, changed, epoch_indices, run_schedule, train_live
from eyespot.evaluate.probing.probe import linear_head
from eyespot.evaluate.protocols.depth import PUBLISHED as DEPTH
from eyespot.evaluate.protocols.segmentation import PUBLISHED as SEGMENTATION
from eyespot.features import Features

SHORT = LiveConfig(
    steps=6, batch_size=2, learning_rate=1e-2, weight_decay=0.0, betas=(0.9, 0.99), warmup=0.2, workers=2
)


class Noisy(Encoder):
    """Learns statistics and draws at random in train mode, as some backbones do."""

    name, summary_dim, patch_dim, stride, default_size = "noisy", 4, 4, 8, (32, 32)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.modes = []

    def _encode(self, images):
        self.modes.append(self.layers[2].training)
        patches = self.layers(images)
        return Features(patches.mean((2, 3)), patches)


@pytest.fixture
def noisy():
    torch.manual_seed(0)
    return Noisy().eval()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    bright = torch.randint(2, (2, 1, 4, 4), generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (60 + 140 * bright).to(torch.uint8).expand(-1, 3, -1, -1), bright[:, 0]


def loss(output, truth, step):
    return F.cross_entropy(output, truth)


def trained(encoder, config, seed=0):
    head = nn.Sequential(nn.Dropout2d(0.3), *linear_head(4, 2, 0))
    train_live(encoder, head, batch, loss, config, seed)
    return head[2].weight.detach().clone()


def test_rates_of_the_published_protocols_by_hand():
    assert SEGMENTATION.rate(0) == pytest.approx(1e-3 / 1500)
    assert SEGMENTATION.rate(749) == pytest.approx(1e-3 / 2, rel=0.01)
    assert SEGMENTATION.rate(1500) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 1500 / 40000)))
    assert SEGMENTATION.rate(20_000) == pytest.approx(5e-4)
    assert SEGMENTATION.rate(39_999) < 1e-11
    assert DEPTH.rate(6399) == pytest.approx(3e-4 / 2 * 0.5 * (1 + math.cos(math.pi / 6)), rel=1e-3)
    assert DEPTH.rate(12_800) == pytest.approx(3e-4 * 0.75)  # cos(60 degrees)
    assert max(map(DEPTH.rate, range(0, 38_400, 100))) < 3e-4
    assert [DEPTH.beta1(step) for step in (0, 12_799)] == [0, 0]
    assert [DEPTH.beta1(step) for step in (12_800, 25_600)] == pytest.approx([0.85, 0.9])
    assert DEPTH.beta1(38_399) == pytest.approx(0.95)
    assert SEGMENTATION.beta1(5) == 0.9


def test_warm_ups_shrink_with_the_steps():
    short = changed(SEGMENTATION, steps=400)
    assert short.rate(0) == pytest.approx(1e-3 / 15, rel=0.01)
    assert short.rate(200) == SEGMENTATION.rate(20_000)


def test_options_that_were_not_given_change_nothing():
    assert changed(DEPTH, steps=5, learning_rate=None, train_mode=False) == changed(DEPTH, steps=5)


def test_a_schedule_runs_with_its_own_configuration_and_the_options_given():
    ways = {"quick": lambda *given: ("q", *given), "published": (lambda *given: ("p", *given), SEGMENTATION)}
    assert run_schedule("published", [3], {"steps": 5}, **ways) == ("p", 3, changed(SEGMENTATION, steps=5))
    assert run_schedule("quick", [3], {"crop": None}, **ways) == ("q", 3)
    with pytest.raises(ValueError, match="crop: only for schedule=published"):
        run_schedule("quick", [3], {"crop": 32, "steps": 5, "train_mode": False}, **ways)
    with pytest.warns(UserWarning, match="learning_rate, steps: without effect"):  # commands of older versions go on
        assert run_schedule("quick", [3], {"learning_rate": 0.1, "steps": 5}, **ways) == ("q", 3)
    with pytest.raises(ValueError, match="no schedule 'publishd'; did you mean 'published'"):
        run_schedule("publishd", [3], {}, **ways)


def test_every_picture_comes_equally_often_in_another_order():
    first = [index for step in range(5) for index in epoch_indices(10, 4, step, seed=0)]
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10)) and first[:10] != first[10:]
    assert epoch_indices(10, 4, 3, 0) == epoch_indices(10, 4, 3, 0) != epoch_indices(10, 4, 3, 1)
    assert len(epoch_indices(3, 8, 0, 0)) == 8


def test_training_is_reproducible_whatever_the_workers_and_the_global_state(noisy):
    first = trained(noisy, SHORT)
    torch.manual_seed(99)
    assert torch.equal(trained(noisy, changed(SHORT, workers=5)), first)
    assert not torch.equal(trained(noisy, SHORT, seed=1), first)


def test_the_global_random_state_is_left_alone(noisy):
    head = nn.Sequential(nn.Dropout2d(0.3), *linear_head(4, 2, 0))
    before = torch.random.get_rng_state()
    train_live(noisy, head, batch, loss, SHORT, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_learns(noisy):
    head = linear_head(4, 2, 0)
    losses = []

    def watched(output, truth, step):
        losses.append(float(loss(output.detach(), truth, step)))
        return loss(output, truth, step)

    train_live(noisy, head, batch, watched, changed(SHORT, steps=80, learning_rate=0.1), 0)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert not head.training


def test_the_backbone_stays_as_it_is(noisy):
    before = {name: value.clone() for name, value in noisy.state_dict().items()}
    noisy.layers[0].train()
    modes = [module.training for module in noisy.modules()]
    for train_mode in (False, True):
        trained(noisy, changed(SHORT, train_mode=train_mode))
        assert all(torch.equal(value, before[name]) for name, value in noisy.state_dict().items())
        assert [module.training for module in noisy.modules()] == modes
    assert all(parameter.grad is None for parameter in noisy.parameters())


def test_modes_are_restored_after_an_error(noisy):
    noisy.train()
    with pytest.raises(KeyError), eval_mode(noisy):
        assert not noisy.layers[1].training
        raise KeyError
    assert noisy.layers[1].training


def test_train_mode_ends_where_it_should(noisy):
    noisy.modes.clear()
    trained(noisy, SHORT)
    assert noisy.modes == [False] * 6
    noisy.modes.clear()
    trained(noisy, changed(SHORT, train_mode=True, train_mode_share=0.5))
    assert noisy.modes == [True] * 4 + [False] * 3  # the first step is looked at twice


def test_train_mode_of_a_backbone_without_randomness_warns():
    encoder = Noisy()
    encoder.layers[2] = nn.Identity()
    with pytest.warns(UserWarning, match="rope_rescale_coords=2"):
        trained(encoder, changed(SHORT, train_mode=True))


def test_timm_s_rescaling_of_positions_is_active_only_in_train_mode():
    spec = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=2&init_values=1.0"
    images = torch.rand(2, 3, 64, 64)
    drawn, still = (load_encoder(spec + more) for more in ("&rope_rescale_coords=2", ""))
    for encoder, training, alike in ((drawn, True, False), (drawn, False, True), (still, True, True)):
        encoder.train(training)
        with torch.no_grad():
            assert torch.equal(encoder(images).patches, encoder(images).patches) == alike


def test_progress_and_divergence(noisy):
    seen = []
    train_live(noisy, linear_head(4, 2, 0), batch, loss, SHORT, 0, lambda done, total: seen.append((done, total)))
    assert seen == [(step, 6) for step in range(1, 7)]
    with pytest.raises(FloatingPointError, match="learning rate"):
        train_live(noisy, linear_head(4, 2, 0), batch, lambda out, *_: out.sum() * math.nan, SHORT, 0)
