import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.crd import contrast, similarities
from eyespot.distill.classes.methods import make_method
from eyespot.distill.classes.outputs import ClassifierOutput, OutputShape
from processes import start_process

SETTINGS = MethodSettings(crd_width=8, crd_negatives=50)
PICTURES = 12


def make(settings=SETTINGS, pictures=PICTURES):
    torch.manual_seed(0)
    return make_method("crd", settings, OutputShape(0, 6), OutputShape(0, 4), pictures)


def outputs(batch, key=0):
    generator = torch.Generator().manual_seed(key)
    return [ClassifierOutput(torch.zeros(batch, 0), torch.randn(batch, width, generator=generator)) for width in (6, 4)]


def tell(method, picture, key=0):
    picture = torch.tensor(picture)
    torch.manual_seed(key)
    return method(*outputs(len(picture), key), torch.zeros(len(picture)).long(), picture)["crd"]


def test_loss_as_published():
    """-log h/(h + K/n) for the picture itself, -log (K/n)/(h + K/n) for each of K others."""
    density = torch.rand(3, 6) + 0.1
    noise = 5 / 20
    itself = density[:, 0] / (density[:, 0] + noise)
    others = noise / (density[:, 1:] + noise)
    wanted = -(itself.log() + others.log().sum(1)).mean()
    torch.testing.assert_close(contrast(density.log(), 20), wanted)


def test_similarities():
    vectors, memory = torch.randn(2, 3), torch.randn(5, 3)
    given = similarities(vectors, memory, torch.tensor([4, 1]), torch.tensor([0, 0, 3]))
    for row, picture in enumerate((4, 1)):
        assert given[row].tolist() == pytest.approx(
            [float(vectors[row] @ memory[other]) for other in (picture, 0, 0, 3)]
        )


def test_each_side_is_told_apart_in_the_memory_of_the_other():
    method = make(MethodSettings(crd_width=8, crd_negatives=50, crd_temperature=0.1)).eval()
    seen = outputs(3)
    picture = torch.tensor([1, 5, 11])
    torch.manual_seed(0)
    negatives = torch.randint(PICTURES, (50,))
    wanted = 0.0
    for embedding, look, memory in (
        (method.student_embedding, seen[0], method.teacher_memory),
        (method.teacher_embedding, seen[1], method.student_memory),
    ):
        score = similarities(F.normalize(embedding(look.summary), dim=1), memory, picture, negatives) / 0.1
        partition = score.exp().mean() * PICTURES
        wanted += contrast(score - partition.log(), PICTURES)
    torch.testing.assert_close(tell(method, picture.tolist()), wanted)


def test_memory_is_written_in_training_only_and_only_where_pictures_were():
    method = make()
    before = method.student_memory.clone(), method.teacher_memory.clone()
    tell(method.eval(), [2, 7])
    assert torch.equal(before[0], method.student_memory) and not method.started
    tell(method.train(), [2, 7])
    embeddings = (method.student_embedding, method.teacher_embedding)
    for old, new, embedding, look in zip(
        before, (method.student_memory, method.teacher_memory), embeddings, outputs(2), strict=True
    ):
        vectors = F.normalize(embedding(look.summary), dim=1)
        torch.testing.assert_close(new[[2, 7]], F.normalize(0.5 * old[[2, 7]] + 0.5 * vectors, dim=1))
        rest = [number for number in range(PICTURES) if number not in (2, 7)]
        assert torch.equal(new[rest], old[rest])
        assert not new.requires_grad


def test_a_picture_that_is_there_twice_is_written_with_the_mean():
    method = make()
    old = method.student_memory.clone()
    tell(method, [3, 3, 1])
    vectors = F.normalize(method.student_embedding(outputs(3)[0].summary), dim=1)
    torch.testing.assert_close(
        method.student_memory[3], F.normalize(0.5 * old[3] + 0.25 * (vectors[0] + vectors[1]), dim=0)
    )


def test_partition_function_is_that_of_the_first_batch():
    method = make()
    tell(method, [0, 1], key=1)
    first = method.log_partitions.clone()
    tell(method, [4, 5], key=2)
    assert first.isfinite().all() and torch.equal(first, method.log_partitions)


@pytest.mark.parametrize("pictures", [1, 3])
def test_more_negatives_than_pictures(pictures):
    assert tell(make(pictures=pictures), [0]).isfinite()


def test_the_same_draws_give_the_same_loss():
    assert tell(make(), [1, 2], key=5) == tell(make(), [1, 2], key=5)


def test_a_student_that_learns_it_recognises_pictures():
    """A few steps on fixed features: each picture becomes likelier than the others in the teacher's memory."""
    method = make()
    student, teacher = outputs(PICTURES)
    picture, target = torch.arange(PICTURES), torch.zeros(PICTURES).long()
    optimizer = torch.optim.Adam(method.parameters(), 0.01)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = method(student, teacher, target, picture)["crd"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    vectors = F.normalize(method.student_embedding(student.summary), dim=1)
    found = (vectors @ method.teacher_memory.T).argmax(1)
    assert (found == picture).float().mean() > 5 / PICTURES


def one_of_two(rank, folder):
    """A process of two, with its half of four pictures."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    method = make()
    torch.manual_seed(9)
    whole = outputs(4, 9)
    half = slice(2 * rank, 2 * rank + 2)
    seen = [ClassifierOutput(look.logits[half], look.summary[half]) for look in whole]
    loss = method(*seen, torch.zeros(2).long(), torch.tensor([3, 8, 8, 0])[half])["crd"]
    torch.save({"loss": loss.detach(), **method.state_dict()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_keep_one_memory(tmp_path):
    """With the same negatives in both, they are what one process with all pictures is, and their mean loss is its."""
    processes = [start_process(one_of_two, rank, tmp_path) for rank in range(2)]
    for process in processes:
        process.join()
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = make()
    torch.manual_seed(9)
    seen = outputs(4, 9)
    loss = alone(*seen, torch.zeros(4).long(), torch.tensor([3, 8, 8, 0]))["crd"]
    torch.testing.assert_close((states[0]["loss"] + states[1]["loss"]) / 2, loss.detach())
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(states[0][name], value, msg=name)
        assert torch.equal(states[0][name], states[1][name]), name


def test_no_pictures():
    with pytest.raises(ValueError, match="how many"):
        make(pictures=0)


def test_memory_starts_about_on_the_sphere():
    method = make(MethodSettings(crd_width=128, crd_negatives=5), pictures=500)
    for memory in (method.student_memory, method.teacher_memory):
        assert memory.norm(dim=1).mean().item() == pytest.approx(1, rel=0.02)
        assert memory.abs().max() <= math.sqrt(3 / 128)
