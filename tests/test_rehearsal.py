"""A rehearsal cuts steps, rows and batches, says so, and counts for nothing."""

import pytest
import torch
from torch import nn

import lessons
from lessons import claims, data, rehearsal, training
from lessons.errors import SettingError


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setenv("LESSONS_REHEARSAL", "3, 40,8")


def test_without_the_switch_nothing_is_cut():
    value = (45_000, [None, 0.5], {"rows": 90_000})
    assert rehearsal.limits() is None and rehearsal.fewer(value) is value
    assert (rehearsal.rows(None), rehearsal.steps(9_999), rehearsal.batch(512)) == (None, 9_999, 512)


@pytest.mark.parametrize("text", ["three", "0", "3,", "3,-1", "1,2,3,4", "2.5"])
def test_a_wrong_value_says_what_is_expected(monkeypatch, text):
    monkeypatch.setenv("LESSONS_REHEARSAL", text)
    with pytest.raises(SettingError, match="LESSONS_REHEARSAL is .*such as 3 or 3,500,32"):
        rehearsal.limits()


def test_numbers_of_a_scale_are_capped_wherever_they_stand(three):
    value = (45_000, 7, 0.5, True, "gpu", [90, None], {100: {"steps": 500}})
    assert rehearsal.fewer(value) == (40, 7, 0.5, True, "gpu", [40, None], {100: {"steps": 40}})
    assert rehearsal.fewer((2, 1_024, 16_384)) == (2, 7, 8), "a rising series stays one, up to the batch"
    assert rehearsal.fewer((16, 60_000, 1_000)) == (16, 40, 40)
    assert rehearsal.fewer((1, 2, 8)) == (1, 2, 8)


def test_a_lesson_rehearses(three, monkeypatch, capsys):
    monkeypatch.setenv("LESSONS_SCALE", "gpu")
    monkeypatch.setenv("LESSONS_DATA", "scenes")
    run = lessons.start(1)
    assert "A rehearsal: trainings of 3 steps, 40 rows, batches of 8." in capsys.readouterr().out
    pictures = data.pictures(source=run.source, train=run.pick(smoke=1, cpu=1, gpu=None), val=5, test=30_000)
    assert (len(pictures.train), len(pictures.val), len(pictures.test)) == (40, 5, 40)
    batches = training.batches(pictures.train, 512)
    assert len(next(batches)[0]) == 8
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    history = training.fit(net, training.cross_entropy, batches, steps=10_000, optimizer=optimizer)
    assert len(history.loss) == 3
    assert history.learning_rate[-1] < 0.005, "the schedule is that of the short training"
    table = claims.Claims(run, "scenes")
    table.add("x", "One is one.", paper="1", here="1", verdict=True)
    assert table.rows[0].verdict == claims.UNJUDGED and table.record()["rehearsal"] is True


def test_weights_of_a_rehearsal_are_neither_kept_nor_loaded(three, monkeypatch):
    net, calls = nn.Linear(2, 2), []

    def train() -> training.History:
        calls.append(1)
        return training.History(loss=[1.0])

    for _ in range(2):
        training.remember("net", net, {"steps": 10_000}, train)
    monkeypatch.delenv("LESSONS_REHEARSAL")
    training.remember("net", net, {"steps": 10_000}, train)
    assert len(calls) == 3
    training.remember("net", net, {"steps": 10_000}, train)
    assert len(calls) == 3
