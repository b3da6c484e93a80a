import networkx
import numpy as np
import pytest
import torch
from skimage.morphology import thin

from eyespot.dense_tasks import IGNORE
from eyespot.evaluate.protocols.multitask.boundary import BoundaryF, boundary_counts, crests, matched_rows, near_pairs

HALF = np.array([0.5])


def line(column, size=(24, 32), rows=slice(4, 20)):
    found = np.zeros(size)
    found[rows, column] = 1
    return found


def pixels(count, seed, size=(12, 16)):
    """That many pixels at random places."""
    places = np.random.default_rng(seed).permutation(size[0] * size[1])[:count]
    found = np.zeros(size[0] * size[1], dtype=bool)
    found[places] = True
    return found.reshape(size)


def most_pairs(one, other, distance):
    """The size of a maximum matching by augmenting paths, over distances taken one by one."""
    first, second = np.argwhere(one), np.argwhere(other)
    near = [[place for place, b in enumerate(second) if np.hypot(*(a - b)) <= distance + 1e-9] for a in first]
    owner = {}

    def augment(row, tried):
        for column in near[row]:
            if column not in tried:
                tried.add(column)
                if column not in owner or augment(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return sum(augment(row, set()) for row in range(len(first)))


@pytest.mark.parametrize("distance", [0.0, 1.0, 1.5, 2.9])
@pytest.mark.parametrize("seed", range(4))
def test_matchings_are_as_large_as_those_of_independent_searches(seed, distance):
    one, other = pixels(30 + 10 * seed, seed), pixels(55, seed + 100)
    pairs = near_pairs(one, other, distance)
    graph = networkx.Graph()
    graph.add_nodes_from(("row", row) for row in range(pairs.shape[0]))
    graph.add_edges_from(
        (("row", int(row)), ("column", int(column))) for row, column in zip(*pairs.nonzero(), strict=True)
    )
    rows = [node for node in graph if node[0] == "row"]
    by_networkx = len(networkx.bipartite.hopcroft_karp_matching(graph, rows)) // 2
    (used,) = matched_rows([pairs])
    assert used.sum() == most_pairs(one, other, distance) == by_networkx


def test_several_matchings_at_once_are_those_of_each():
    problems = [near_pairs(pixels(20 + 9 * seed, seed), pixels(40, 77), 1.5) for seed in range(4)]
    problems.insert(2, problems[0][:0])  # nothing predicted
    together = matched_rows(problems)
    assert [len(used) for used in together] == [20, 29, 0, 38, 47]
    assert [used.sum() for used in together] == [matched_rows([one])[0].sum() for one in problems]
    assert matched_rows([near_pairs(pixels(5, 1), pixels(0, 2), 3.0)])[0].tolist() == [False] * 5


def test_chains_take_no_exponential_time():
    """Bands that lie side by side, on which scipy's own matching does not come to an end."""
    one, other = np.zeros((2, 64, 400), dtype=bool)
    one[10:60:7], other[12:60:7] = True, True
    pairs = near_pairs(one, other, 4.6)
    assert matched_rows([pairs])[0].sum() == min(one.sum(), other.sum())


def test_pairs_are_those_within_the_distance_in_row_major_order():
    one, other = pixels(9, 1), pixels(14, 2)
    found = near_pairs(one, other, 2.0).toarray()
    wanted = [[np.hypot(*(a - b)) <= 2 for b in np.argwhere(other)] for a in np.argwhere(one)]
    assert np.array_equal(found, np.array(wanted))
    assert near_pairs(one, np.zeros_like(one), 2.0).shape == (9, 0)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_each_threshold_by_itself(seed):
    generator = np.random.default_rng(seed)
    probability, truth = generator.random((12, 16)), pixels(40, seed).astype(np.uint8)
    truth[:, -2:] = IGNORE
    thresholds = np.linspace(0.05, 0.95, 10)
    found = boundary_counts(probability, truth, thresholds, 0.1)
    crest = np.where(truth == IGNORE, 0, crests(probability))
    for place, threshold in enumerate(thresholds):
        kept = thin(crest >= threshold)
        assert found.predicted[place] == kept.sum()
        assert found.matched[place] == most_pairs(kept, truth == 1, 0.1 * np.hypot(12, 16))
    assert (found.true == (truth == 1).sum()).all()


def test_the_truth_itself_is_perfect():
    truth = line(10) + line(20)
    found = boundary_counts(truth, truth.astype(np.uint8), HALF, 0.0)
    assert found.matched.tolist() == found.predicted.tolist() == found.true.tolist() == [32]
    assert found.f_measure.tolist() == [1.0]


@pytest.mark.parametrize(("shift", "matched"), [(0, 16), (1, 16), (2, 0)])
def test_a_shifted_line_counts_as_far_as_the_distance_reaches(shift, matched):
    distance = 1 / np.hypot(24, 32)  # exactly one pixel
    found = boundary_counts(line(10 + shift), line(10).astype(np.uint8), HALF, distance)
    assert found.matched.tolist() == [matched] and found.predicted.tolist() == [16]


def test_a_doubled_line_is_found_once():
    found = boundary_counts(line(9) + line(11), line(10).astype(np.uint8), HALF, 1.2 / 40)
    assert (found.matched[0], found.predicted[0], found.true[0]) == (16, 32, 16)
    assert (found.precision[0], found.recall[0]) == (0.5, 1.0)
    assert found.f_measure[0] == pytest.approx(2 / 3)


def test_nothing_predicted_and_nothing_true_give_no_score_but_no_error():
    empty, truth = np.zeros((24, 32)), line(10).astype(np.uint8)
    found = boundary_counts(empty, truth, HALF, 0.02)
    assert (found.matched[0], found.predicted[0], found.f_measure[0], found.precision[0]) == (0, 0, 0, 0)
    found = boundary_counts(truth.astype(float), empty.astype(np.uint8), HALF, 0.02)
    assert (found.matched[0], found.predicted[0], found.f_measure[0], found.recall[0]) == (0, 16, 0, 0)


def test_predictions_where_nothing_is_labelled_do_not_count():
    truth = line(10).astype(np.uint8)
    truth[:, 20:] = IGNORE
    found = boundary_counts(line(10) + line(25), truth, HALF, 0.02)
    assert found.f_measure.tolist() == [1.0]


@pytest.mark.parametrize("turn", [0.0, 0.3, np.pi / 4, 1.2, np.pi / 2, 2.5])
def test_crests_of_a_blurred_line_are_the_line(turn):
    rows, columns = np.indices((41, 41)) - 20
    distance = rows * np.cos(turn) + columns * np.sin(turn)
    kept = crests(np.exp(-(distance**2) / 8)) > 0.3
    inner = kept[5:-5, 5:-5]
    assert abs(distance[5:-5, 5:-5][inner]).max() < 1.0
    assert inner.sum() >= 31  # no gaps: at least one pixel per row or column


def test_a_blurred_line_counts_as_one_line():
    columns = np.indices((24, 32))[1]
    blurred = np.exp(-((columns - 10.0) ** 2) / 6)
    found = boundary_counts(blurred, (columns == 10).astype(np.uint8), HALF, 0.0)
    assert found.f_measure.tolist() == [1.0]


def logits(probability):
    return torch.from_numpy(probability).clamp(1e-4, 1 - 1e-4).logit()[None].float()


def test_the_best_threshold_is_that_of_the_whole_set():
    """Alone, each picture would be perfect at some threshold; together they cannot be."""
    metric, ois = BoundaryF(0.02, thresholds=9), []
    for weak, strong in ((0.25, 0.45), (0.65, 0.85)):
        probability, truth = strong * line(10) + weak * line(20), line(10).astype(np.uint8)
        alone = BoundaryF(0.02, thresholds=9)
        for each in (metric, alone):
            each.update(logits(probability), torch.from_numpy(truth))
        ois.append(alone.compute()["odsF"])
    assert ois == [1.0, 1.0]
    assert metric.counts.matched.tolist() == [32, 32, 32, 32, 16, 16, 16, 16, 0]
    assert metric.counts.predicted.tolist() == [64, 64, 48, 48, 32, 32, 16, 16, 0]
    assert metric.compute()["odsF"] == pytest.approx(2 * 32 / (48 + 32))


def test_odsf_of_nothing_is_unknown_and_settings_are_checked():
    metric = BoundaryF(0.01)
    assert len(metric.thresholds) == 99 and metric.thresholds[49] == 0.5
    metric.update(torch.zeros(1, 6, 8), torch.full((6, 8), IGNORE, dtype=torch.uint8))
    assert np.isnan(metric.compute()["odsF"])
    with pytest.raises(ValueError, match="at least one threshold"):
        BoundaryF(0.01, thresholds=0)
