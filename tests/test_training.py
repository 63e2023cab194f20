"""The training loop and what stands around it: the steps of a loop written by hand, and nothing lost on the way."""

import copy
import math
import signal
import threading
from functools import partial
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lessons
from lessons import store, training
from lessons.data import Pictures
from lessons.errors import SettingError
from lessons.nets.vit import ViT
from lessons.training import (
    EMA,
    Interrupted,
    TrainingDiverged,
    TrainingInterrupted,
    batches,
    fit,
    predict,
    remember,
    schedule,
    side_by_side,
)

CPU = torch.device("cpu")
LONG = 100_000  # steps: minutes, for trainings that an interrupt ends at once
HANGS = 600  # seconds after which a test that waits for another thread gives up


@pytest.fixture
def two_threads():
    """side_by_side needs two threads to run two jobs at a time."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def some(n: int = 40) -> Pictures:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=chance)
    return Pictures(images, torch.arange(n) % 5, tuple("abcde"), "noise", "built-in scenes")


def job(seed: int = 0, steps: int = 5, loss_function=training.cross_entropy, **options):
    """A network and the call that trains it, with everything that `fit` needs filled in."""
    net = network(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    return net, partial(fit, net, loss_function, batches(some(), 8), steps=steps, optimizer=optimizer, **options)


def interrupts_at(step: int, error: type[BaseException] = KeyboardInterrupt):
    """A loss function in which `error` is raised at the given step."""
    calls = []

    def loss_function(net, batch):
        calls.append(1)
        if len(calls) > step:
            raise error
        return training.cross_entropy(net, batch)

    return loss_function


def assert_same_weights(one: nn.Module, other: nn.Module, **tolerance) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], **({"rtol": 0, "atol": 0} | tolerance))


# The loop


@pytest.mark.parametrize("clip", [None, 0.1])
def test_fit_takes_the_steps_of_a_loop_written_by_hand(clip):
    steps, peak = 12, 0.05
    net, train = job(steps=steps, clip=clip, warmup=0.25)
    history = train()
    own = network()
    optimizer = torch.optim.SGD(own.parameters(), lr=peak, momentum=0.9)
    losses, rates = [], []
    for step, (images, labels) in zip(range(steps), batches(some(), 8), strict=False):
        rate = peak * ((step + 1) / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 9)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        loss = F.cross_entropy(own(images), labels)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            norm = torch.cat([p.grad.flatten() for p in own.parameters()]).norm()
            for p in own.parameters():
                p.grad *= min(1, clip / norm)
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate)
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(history.loss, losses, **tolerance)
    assert history.learning_rate == pytest.approx(rates)
    assert_same_weights(net, own, **tolerance)
    assert history.seconds > 0 and not history.interrupted and not history.metrics
    assert lessons.fit is fit


def test_each_group_of_the_optimizer_follows_the_schedule_and_gets_its_rate_back():
    net, seen = network(), []
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[4].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups)
    watch = lambda step: seen.append([group["lr"] for group in optimizer.param_groups])  # noqa: E731
    options = {"optimizer": optimizer, "shape": "linear", "warmup": 0.0, "after_step": watch}
    fit(net, training.cross_entropy, batches(some(), 8), steps=4, **options)
    assert seen == [pytest.approx([0.1 * f, 0.02 * f]) for f in (1, 0.75, 0.5, 0.25)]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]


def test_a_gradient_from_before_is_not_part_of_the_first_step():
    fresh, train = job(steps=3)
    train()
    used, train_used = job(steps=3)
    F.cross_entropy(
        used.eval()(torch.randn(8, 3, 8, 8)), torch.arange(8) % 5
    ).backward()  # somebody looked at gradients
    train_used()
    assert_same_weights(fresh, used)


def test_the_model_trains_in_train_mode():
    net, train = job(steps=1)
    net.eval()
    train()
    assert net.training and net[1].num_batches_tracked == 1


@pytest.mark.parametrize("bound", [0.05, 1e6])
def test_clipping_bounds_the_norm_of_all_that_the_optimizer_moves(bound):
    """With plain SGD at rate 1 an update is the gradient, so its size shows."""
    torch.manual_seed(0)
    net, scale = nn.Linear(4, 2), nn.Parameter(torch.tensor(3.0))  # such as a temperature, kept outside the network
    before = [p.detach().clone() for p in (*net.parameters(), scale)]
    optimizer = torch.optim.SGD([*net.parameters(), scale], lr=1.0)
    loss = lambda net, batch: 100 * (scale * net(batch[0])).square().mean()  # noqa: E731
    fit(net, loss, [(torch.ones(3, 4),)], steps=1, optimizer=optimizer, shape="constant", warmup=0, clip=bound)
    moved = torch.cat([(p - old).detach().flatten() for p, old in zip((*net.parameters(), scale), before, strict=True)])
    assert moved.norm().item() == pytest.approx(bound, rel=1e-3) if bound < 1 else moved.norm() > 1


def test_after_step_runs_once_per_step_when_the_weights_have_changed():
    net, seen = network(), []
    weights = [net[4].weight.detach().clone()]

    def look(step):
        seen.append(step)
        assert not torch.equal(net[4].weight, weights[-1])
        weights.append(net[4].weight.detach().clone())

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    fit(net, training.cross_entropy, batches(some(), 8), steps=6, optimizer=optimizer, warmup=0, after_step=look)
    assert seen == list(range(6))


def test_metrics_are_recorded_per_step_as_they_were_then():
    def loss_function(net, batch):
        loss = training.cross_entropy(net, batch)
        return loss, {"twice": 2 * loss, "plain": 0.5, "bias": net[4].bias[0]}  # the update changes the bias in place

    net, train = job(steps=4, loss_function=loss_function)
    first = net[4].bias[0].item()
    history = train()
    assert history.metrics["twice"] == pytest.approx([2 * loss for loss in history.loss])
    assert history.metrics["plain"] == [0.5] * 4 and len(history.metrics["bias"]) == 4
    assert history.metrics["bias"][0] == first != history.metrics["bias"][1]


def test_precision_is_the_autocast_type_of_the_forward_pass():
    seen = []

    def loss_function(net, batch):
        output = net(batch[0])
        seen.append(output.dtype)
        return F.cross_entropy(output.float(), batch[1])

    net, train = job(steps=1, loss_function=loss_function, precision=torch.bfloat16)
    train()
    job(steps=1, loss_function=loss_function)[1]()
    assert seen == [torch.bfloat16, torch.float32] and net[4].weight.dtype == torch.float32


def test_data_that_ends_early_ends_the_training_and_says_so(capsys):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    three = [batch for batch, _ in zip(batches(some(), 8), range(3), strict=False)]
    history = fit(net, training.cross_entropy, three, steps=5, optimizer=optimizer, title="short")
    assert len(history.loss) == len(history.learning_rate) == 3 and not history.interrupted
    assert capsys.readouterr().out == "short: the data ended after 3 of 5 steps.\n"
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_fit_takes_no_more_batches_than_steps():
    taken = []
    data = (taken.append(1) or batch for batch in batches(some(), 8))
    net = network()
    fit(net, training.cross_entropy, data, steps=4, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    assert len(taken) == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_stops_and_says_where(value):
    calls = []

    def loss_function(net, batch):
        calls.append(1)
        return training.cross_entropy(net, batch) * (value if len(calls) == 4 else 1)

    net, train = job(steps=10, loss_function=loss_function, shape="constant", warmup=0, title="too hot")
    with pytest.raises(TrainingDiverged) as raised:
        train()
    message = str(raised.value)
    assert "too hot" in message and "step 3" in message and "learning rate 0.05" in message and "clip" in message
    assert f"before it was {raised.value.history.loss[-1]:.3g}" in message
    assert len(raised.value.history.loss) == 3 == len(raised.value.history.learning_rate)
    assert train.keywords["optimizer"].param_groups[0]["lr"] == 0.05


def test_a_loss_that_is_never_a_number():
    _, train = job(loss_function=lambda net, batch: net(batch[0]).mean() * math.nan)
    with pytest.raises(TrainingDiverged, match="step 0") as raised:
        train()
    assert raised.value.history.loss == []


def test_another_error_passes_through_and_the_learning_rate_is_put_back():
    _, train = job(loss_function=interrupts_at(2, ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        train()
    assert train.keywords["optimizer"].param_groups[0]["lr"] == 0.05


# Interrupting


@pytest.mark.parametrize("step", [0, 3])
def test_interrupting_keeps_what_was_trained(capsys, step):
    net, train = job(steps=9, loss_function=interrupts_at(step), title="net")
    with pytest.raises(TrainingInterrupted) as raised:
        train()
    history = raised.value.history
    assert history.interrupted and len(history.loss) == len(history.learning_rate) == step
    (line,) = raised.value._render_traceback_()
    assert line == str(raised.value) and line.startswith(f"net: interrupted after {step} of 9 steps. To start over")
    assert capsys.readouterr().out == "" and raised.value.__suppress_context__
    assert train.keywords["optimizer"].param_groups[0]["lr"] == 0.05
    reference, whole = job(steps=9)
    counted = []
    whole.keywords["after_step"] = lambda done: counted.append(copy.deepcopy(reference.state_dict()))
    whole()
    expected = counted[step - 1] if step else network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


class Watched:
    """A metric whose reading is interrupted once: on a GPU most of the time is spent there, waiting."""

    def __init__(self):
        self.reads = 0

    def __float__(self):
        self.reads += 1
        if self.reads == 3:
            raise KeyboardInterrupt
        return 1.0


def test_interrupting_while_numbers_are_read_counts_no_step_twice():
    metric = Watched()
    _, train = job(steps=9, loss_function=lambda net, batch: (training.cross_entropy(net, batch), {"m": metric}))
    with pytest.raises(TrainingInterrupted) as raised:
        train()
    history = raised.value.history
    assert len(history.loss) == len(set(history.loss)) == len(history.learning_rate) == len(history.metrics["m"]) == 3


def test_training_goes_on_after_an_interrupt():
    net, train = job(steps=4, loss_function=interrupts_at(2))
    with pytest.raises(KeyboardInterrupt):  # what a script has always got
        train()
    _, again = job(steps=4)
    history = again()
    assert len(history.loss) == 4 and not history.interrupted


# Schedules and parameter groups


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", {10: 1, 54: 1, 55: 1, 99: 1}),
        ("linear", {10: 1, 55: 0.5, 99: 1 / 90}),
        ("cosine", {10: 1, 55: 0.5, 99: (1 + math.cos(math.pi * 89 / 90)) / 2}),
        ("step", {10: 1, 63: 1, 64: 0.1, 86: 0.1, 87: 0.01, 99: 0.01}),  # 60 % and 85 % of what follows the warm-up
    ],
)
def test_schedules(name, expected):
    factor = schedule(name, 100, warmup=0.1)
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert {step: factor(step) for step in expected} == pytest.approx(expected)
    falling = [factor(step) for step in range(9, 100)]
    assert falling == sorted(falling, reverse=True) and min(falling) > 0


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_schedules_without_warm_up_or_with_nothing_else(steps):
    for name in ("constant", "linear", "cosine", "step"):
        assert schedule(name, steps, warmup=0)(0) == 1
        assert schedule(name, steps, warmup=1)(steps - 1) == 1
        assert all(0 < schedule(name, steps)(step) <= 1 for step in range(steps))


def test_a_schedule_that_does_not_exist():
    with pytest.raises(SettingError, match="'cosin'.*constant, linear, cosine, step"):
        schedule("cosin", 10)
    with pytest.raises(SettingError):
        job(shape="cosin")[1]()


def test_only_matrices_and_kernels_decay():
    net = network()
    net[0].requires_grad_(False)
    decayed, rest = training.parameter_groups(net, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(net[4].weight)] and decayed["weight_decay"] == 0.1
    assert {id(p) for p in rest["params"]} == {id(net[1].weight), id(net[1].bias), id(net[4].bias)}
    assert rest["weight_decay"] == 0
    net[0].requires_grad_(True)
    everything = [p for group in training.parameter_groups(net, 0.1) for p in group["params"]]
    assert {id(p) for p in everything} == {id(p) for p in net.parameters()} and len(everything) == 6


def test_positions_and_tokens_do_not_decay():
    net = ViT(image=8, patch=4, width=8, depth=1, heads=2)
    decayed, rest = training.parameter_groups(net, 0.05)
    names = {id(p): name for name, p in net.named_parameters()}
    assert all(names[id(p)].endswith(".weight") and "norm" not in names[id(p)] for p in decayed["params"])
    free = {names[id(p)] for p in rest["params"]}
    assert {"position", "class_token"} <= free and len(free) + len(decayed["params"]) == len(names)


def test_history_in_short():
    history = training.History(loss=[4.0, 2.0, 3.0, 1.0])
    assert history.smooth(2) == pytest.approx([4, 3, 2.5, 2]) and history.smooth(100)[-1] == pytest.approx(2.5)
    assert history.last(2) == 2 and history.last() == 2.5
    assert math.isnan(training.History().last()) and training.History().smooth() == []


# Batches


def test_batches_are_standardised_and_carry_their_labels():
    pictures = some()
    stream = batches(pictures, 8)
    images, labels = next(stream)
    assert images.shape == (8, 3, 8, 8) and images.dtype == torch.float32
    assert labels.shape == (8,) and labels.dtype == torch.int64
    lookup = {
        tuple(image.flatten().tolist()): int(label)
        for image, label in zip(pictures.images, pictures.labels, strict=True)
    }
    back = ((images * 0.25 + 0.5) * 255).round().to(torch.uint8)
    assert [lookup[tuple(image.flatten().tolist())] for image in back] == labels.tolist()
    assert images.min() == pytest.approx(-2) and images.max() == pytest.approx(2)
    both = training.to_input(pictures.images), training.to_input(pictures.images.float() / 255)
    torch.testing.assert_close(*both)


def order(count: int, size: int, n: int = 20, **options) -> list[list[int]]:
    """Which pictures come, by number: picture i is filled with i."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 2, 2)
    stream = batches(Pictures(images, torch.arange(n), (), "n", "n"), size, **options)
    return [next(stream)[1].tolist() for _ in range(count)]


def test_each_pass_shows_no_picture_twice_and_comes_in_a_new_order():
    first, second = order(8, 5)[:4], order(8, 5)[4:]
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(20))
    assert first != second and sum(first, []) != list(range(20))


def test_the_incomplete_last_batch_is_left_out_and_its_pictures_come_another_time():
    passes = order(60, 6)  # three batches of six out of twenty
    for start in range(0, 60, 3):
        seen = sum(passes[start : start + 3], [])
        assert len(seen) == len(set(seen)) == 18
    assert set(sum(passes, [])) == set(range(20))


def test_the_order_depends_on_the_seed_alone():
    once = order(6, 5, seed=3)
    torch.manual_seed(99)
    assert order(6, 5, seed=3, augment=lambda x, generator: x + torch.rand(1, generator=generator)) == once
    assert order(6, 5, seed=4) != once


def test_augment_gets_pictures_in_unit_range_and_its_own_chance():
    seen = []

    def augment(images, *, generator):
        seen.append((images, torch.rand(3, generator=generator)))
        return images * 0

    stream = batches(some(), 8, seed=5, augment=augment)
    assert next(stream)[0].eq(-2).all()  # what it returns is then standardised
    next(stream)
    assert seen[0][0].min() >= 0 and 0.9 < seen[0][0].max() <= 1 and not torch.equal(seen[0][1], seen[1][1])
    again = batches(some(), 8, seed=5, augment=augment)
    next(again)
    assert torch.equal(seen[2][1], seen[0][1]) and torch.equal(seen[2][0], seen[0][0])


@pytest.mark.parametrize("size", [0, -1, 41])
def test_a_batch_size_that_does_not_fit(size):
    with pytest.raises(SettingError, match=rf"{size}.* 40 "):
        next(batches(some(), size))
    assert len(next(batches(some(), 40))[1]) == 40


# Side by side


def test_side_by_side_gives_results_in_order_with_the_numbers_of_one_by_one(two_threads):
    torch.set_num_threads(1)  # a job has one thread there too; a sum split over two rounds differently
    alone = [job(seed, steps=6)[1]().loss for seed in range(4)]
    torch.set_num_threads(2)
    _, jobs = zip(*(job(seed, steps=6) for seed in range(4)), strict=True)
    histories = side_by_side(jobs, CPU)
    assert [history.loss for history in histories] == alone and len({tuple(loss) for loss in alone}) == 4
    assert torch.get_num_threads() == 2
    second = threading.Event()
    slow_first = [lambda: second.wait(HANGS) and "first", lambda: second.set() or "second", lambda: "third"]
    assert side_by_side(slow_first, CPU) == ["first", "second", "third"]


def test_side_by_side_repeats_itself_in_bfloat16_where_weights_are_used_twice(two_threads):
    def twice(seed: int):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 10))
        chance = torch.Generator().manual_seed(seed)
        data = ([torch.randn(n, 64, generator=chance) for n in (64, 200)] for _ in range(100))
        loss = lambda net, batch: net(batch[0]).square().mean() + net(batch[1]).cos().mean()  # noqa: E731
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        return net, partial(fit, net, loss, data, steps=100, optimizer=optimizer, precision=torch.bfloat16)

    def weights():
        nets, jobs = zip(*(twice(seed) for seed in range(4)), strict=True)
        side_by_side(jobs, CPU)
        return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])

    assert torch.equal(weights(), weights())


def test_two_jobs_really_run_at_the_same_time(two_threads):
    meeting = threading.Barrier(2)
    assert sorted(side_by_side([partial(meeting.wait, HANGS)] * 2, CPU)) == [0, 1]


def test_with_one_thread_or_on_a_gpu_jobs_run_one_by_one(two_threads):
    jobs = [threading.current_thread] * 3
    assert side_by_side(jobs, torch.device("cuda")) == [threading.main_thread()] * 3
    torch.set_num_threads(1)
    assert side_by_side(jobs, CPU) == [threading.main_thread()] * 3
    assert side_by_side([], CPU) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_in_one_training_ends_all(two_threads, capsys, threads):
    torch.set_num_threads(threads)
    endless = job(1, steps=LONG)[1]
    never_started = job(2, steps=LONG)[1]
    with pytest.raises(Interrupted) as raised:
        side_by_side([job(0, steps=9, loss_function=interrupts_at(3))[1], endless, never_started], CPU)
    line = str(raised.value)
    assert line.startswith("Interrupted: 0 of 3 trainings ended, ") and "after 3 of 9" in line
    assert ("2 had not begun" if threads == 1 else " had not begun") in line
    assert capsys.readouterr().out == ""
    assert torch.get_num_threads() == threads
    assert len(job(steps=4)[1]().loss) == 4  # the next training is not affected
    assert len(side_by_side([job(steps=4)[1]], CPU)[0].loss) == 4


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot signal a thread")
def test_interrupting_the_notebook_ends_all_trainings(two_threads, monkeypatch):
    """The signal of the stop button reaches the main thread, which is waiting."""
    started, waiting = threading.Barrier(3), threading.Event()
    wait = training.wait
    monkeypatch.setattr(training, "wait", lambda *arguments: waiting.set() or wait(*arguments))

    def loss_function(net, batch):
        net.steps += 1
        if net.steps == 3:
            started.wait(HANGS)
        return training.cross_entropy(net, batch)

    nets, jobs = zip(*(job(seed, steps=LONG, loss_function=loss_function) for seed in range(2)), strict=True)
    for net in nets:
        net.steps = 0

    def press_stop():
        started.wait(HANGS)
        waiting.wait(HANGS)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    helper = threading.Thread(target=press_stop)
    try:
        helper.start()
        with pytest.raises(Interrupted, match="^Interrupted: 0 of 2 trainings ended, "):
            side_by_side(jobs, CPU)
    finally:
        helper.join()
        signal.signal(signal.SIGINT, before)
    assert len(job(steps=4)[1]().loss) == 4 and torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_one_job_is_raised_and_everything_is_put_back(two_threads, threads):
    torch.set_num_threads(threads)
    jobs = [job(0)[1], job(1, loss_function=interrupts_at(2, ZeroDivisionError))[1], job(2)[1]]
    with pytest.raises(ZeroDivisionError):
        side_by_side(jobs, CPU)
    assert torch.get_num_threads() == threads and len(job(steps=4)[1]().loss) == 4


# Moving average, prediction


def test_ema_follows_its_formula_and_copies_buffers():
    net = network()
    average = EMA(net, momentum=0.8)
    expected = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def update(step):
        average.update(net)
        expected[:] = [0.8 * mean + 0.2 * p.detach() for mean, p in zip(expected, net.parameters(), strict=True)]

    fit(net, training.cross_entropy, batches(some(), 8), steps=5, optimizer=optimizer, after_step=update)
    for mean, value in zip(average.network.parameters(), expected, strict=True):
        torch.testing.assert_close(mean, value)
        assert not mean.requires_grad
    for mean, value in zip(average.network.buffers(), net.buffers(), strict=True):
        assert torch.equal(mean, value) and mean is not value
    assert not average.network.training and net.training
    assert average.network[1].num_batches_tracked == 5
    assert not torch.equal(average.network[4].weight, net[4].weight)


def test_ema_starts_as_a_copy_of_its_own():
    net = network()
    average = EMA(net)
    with torch.no_grad():
        net[4].weight.zero_()
    assert average.network[4].weight.any() and net[4].weight.requires_grad


@pytest.mark.parametrize("mode", [True, False])
def test_predict_equals_one_pass_in_eval_mode_and_puts_the_mode_back(mode):
    net, images = network(), some(23).images
    in_train_mode = net.train()(training.to_input(images))  # moves the statistics away from their start
    expected = net.eval()(training.to_input(images))
    state = copy.deepcopy(net.state_dict())
    net.train(mode)
    for batch in (500, 7, 1):
        outputs = predict(net, images, batch)
        torch.testing.assert_close(outputs, expected)
        assert outputs.dtype == torch.float32 and not outputs.requires_grad
        assert net.training is mode
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not torch.allclose(expected, in_train_mode)


def test_predict_puts_the_mode_back_after_an_error():
    net = network().train()
    with pytest.raises(RuntimeError):
        predict(net, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert net.training


def test_accuracy():
    pictures = some(20)

    class Knows(nn.Module):
        """Reads the label off the first pixel of pictures prepared for it, with some mistakes."""

        def forward(self, x):
            return F.one_hot(((x[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long() % 5, 5).float()

    pictures.images[:, 0, 0, 0] = pictures.labels.to(torch.uint8)
    assert training.accuracy(Knows(), pictures) == 1
    pictures.images[:5, 0, 0, 0] += 1
    assert training.accuracy(Knows(), pictures) == 0.75


# Trained models kept for next time


def kept(net, train, settings=None, name="net"):
    """remember(), and whether it trained."""
    calls = []
    history = remember(name, net, settings or {"steps": 5}, lambda: calls.append(1) or train())
    return history, bool(calls)


def test_the_second_call_loads_the_same_weights_without_training(capsys):
    net, train = job(steps=5)
    history, trained = kept(net, train)
    other = network(seed=7)
    again, trained_again = kept(other, lambda: pytest.fail("trained again"))
    assert trained and not trained_again
    assert_same_weights(net, other)
    assert again == history and again.loss == history.loss
    (file,) = store.cache_dir("models").glob("*.safetensors")
    assert "loaded" in (out := capsys.readouterr().out) and file.name in out


def test_other_settings_another_name_or_another_network_train_again():
    assert kept(*job())[1]
    assert kept(*job(), settings={"steps": 6})[1]
    assert kept(*job(), name="other")[1]
    wide = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.01)
    train = partial(fit, wide, training.cross_entropy, batches(some(), 8), steps=5, optimizer=optimizer)
    assert kept(wide, train)[1]
    assert not kept(*job())[1] and not kept(*job(), settings={"steps": 6})[1]
    assert kept(*job(), settings={"b": 1, "a": 2})[1] and not kept(*job(), settings={"a": 2, "b": 1})[1]


def test_a_damaged_file_means_training_again(capsys):
    history, _ = kept(*job())
    (file,) = store.cache_dir("models").glob("*.safetensors")
    whole = bytearray(file.read_bytes())
    for damage in (whole[:-20], whole[:-4] + b"\xff\xff\xff\xff", b"", b"not a model at all"):
        file.write_bytes(damage)
        again, trained = kept(*job())
        assert trained and again.loss == history.loss
    assert "damaged" in capsys.readouterr().err
    assert not kept(*job())[1]


def test_an_interrupted_training_is_not_kept():
    with pytest.raises(TrainingInterrupted):
        kept(*job(loss_function=interrupts_at(2)))
    assert kept(*job())[1]


def test_a_training_that_fails_keeps_nothing():
    with pytest.raises(ZeroDivisionError):
        kept(*job(loss_function=interrupts_at(2, ZeroDivisionError)))
    assert kept(*job())[1]


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_next_time(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "file"))
    net, train = job()
    history, trained = kept(net, train)
    assert trained and len(history.loss) == 5
    assert "trained, but not kept" in (out := capsys.readouterr().out) and str(tmp_path / "file") in out
    assert kept(*job())[1]


def test_a_headless_run_trains_anew_and_keeps_the_result(monkeypatch):
    monkeypatch.setenv("LESSONS_HEADLESS", "1")
    assert kept(*job())[1] and kept(*job())[1]
    monkeypatch.delenv("LESSONS_HEADLESS")
    assert not kept(*job())[1]


def test_the_progress_bar_goes_away_and_headless_runs_have_none(monkeypatch, capsys):
    job(steps=3, title="the bar")[1]()
    assert "the bar" in capsys.readouterr().err
    monkeypatch.setenv("LESSONS_HEADLESS", "1")
    job(steps=3, title="the bar")[1]()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_step_is_missing_from_the_history():
    for steps in (3, 25, 30):
        net = nn.Linear(4, 2).cuda()
        batch = (torch.randn(8, 4, device="cuda"), torch.zeros(8, dtype=torch.int64, device="cuda"))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for data in (repeat(batch), [batch] * steps):
            history = fit(net, training.cross_entropy, data, steps=steps, optimizer=optimizer)
            assert len(history.loss) == len(history.learning_rate) == steps


def test_who_changes_the_experiment_trains_again(monkeypatch):
    """Weights of another experiment under the same name would be a false result."""

    def trains(cell="net, train = ...", change=lambda x, generator: x, **changes) -> bool:
        monkeypatch.setattr(training, "_running_cell", lambda: cell)
        net, before = network(), torch.cat([p.detach().flatten() for p in network().parameters()])
        optimizer = torch.optim.SGD(net.parameters(), lr=changes.pop("lr", 0.05), momentum=0.9)
        settings = {"steps": 3, "optimizer": optimizer, "precision": None} | changes
        loss = settings.pop("loss", training.cross_entropy)
        train = partial(fit, net, loss, batches(some(), 8, augment=change), **settings)
        remember("net", net, {"name": "net"}, train)
        assert not torch.equal(before, torch.cat([p.detach().flatten() for p in net.parameters()]))
        return optimizer.state != {}

    assert trains() and not trains()
    assert trains(lr=0.01) and trains(clip=1.0) and trains(precision=torch.bfloat16)
    assert trains(loss=lambda net, batch: training.cross_entropy(net, batch) * 2)
    assert trains(change=lambda x, generator: x.flip(3))
    assert trains(cell="net, train = ...  # with another width") and not trains(cell="net, train = ...")
