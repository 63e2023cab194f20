"""The networks of lesson 04: an encoder with a head, a reader of captions, and a queue that wraps around."""

import pytest
import torch
import torch.nn.functional as F
from parity import agree, in_float64

from lessons.errors import SettingError
from lessons.nets.contrastive import KeyQueue, PictureEncoder, WordBag
from lessons.nets.resnet import FastResNet

pytestmark = in_float64


@pytest.mark.parametrize("size", [32, 16])
def test_encoder_is_the_body_of_the_fast_network_and_a_head(size):
    torch.manual_seed(0)
    net, body, x = PictureEncoder(width=4, out=5).eval(), FastResNet(width=4).eval(), torch.randn(3, 3, size, size)
    body.features.load_state_dict(net.encoder.state_dict())
    features = body.features(x).flatten(2).max(2).values
    assert features.shape == (3, 32) and net(x).shape == (3, 5)
    agree(net.features(x), features)
    agree(net(x), net.head[2](net.head[0](features).clamp(min=0)))


def test_word_bag_is_the_mean_of_its_words():
    torch.manual_seed(0)
    bag = WordBag("a red ring and blue square".split(), width=6, out=4)
    sentences = ["a red ring", "blue", "a square, a ring and a dragon", ""]
    rows = []
    for sentence in sentences:
        numbers = [bag.numbers.get(word, 0) for word in sentence.replace(",", "").split()] or [0]
        rows.append(bag.embedding.weight[torch.tensor(numbers)].mean(0))
    agree(bag(sentences), bag.head(torch.stack(rows)))
    agree(bag(["a red ring"]), bag(["ring red a"]))  # the order is lost, and that is said
    agree(bag(["dragon"]), bag(["unicorn"]))


def test_word_bag_numbers_do_not_depend_on_the_order_of_the_vocabulary():
    assert WordBag(["b", "a", "b"]).numbers == WordBag(["a", "b"]).numbers == {"a": 1, "b": 2}


def test_queue_keeps_the_last_keys_in_a_ring():
    queue, pushed = KeyQueue(7, 3), []
    assert torch.equal(queue.age, torch.full((7,), -1))
    agree(queue.keys.norm(dim=1), torch.ones(7))
    for step, size in enumerate((3, 2, 4, 7, 1)):
        new = torch.randn(size, 3, generator=torch.Generator().manual_seed(step))
        places = queue.push(new)
        agree(queue.keys[places], F.normalize(new, dim=1))
        pushed += [(row, step) for row in F.normalize(new, dim=1)]
        kept = {place: entry for place, entry in zip(_places(len(pushed)), pushed, strict=True)}
        for place, (row, when) in kept.items():
            agree(queue.keys[place], row)
            assert queue.age[place] == step - when


def _places(count: int) -> list[int]:
    return [i % 7 for i in range(count)]


def test_queue_carries_no_gradient_and_is_saved_whole():
    queue, new = KeyQueue(5, 2), torch.randn(3, 2, requires_grad=True)
    queue.push(new)
    assert not queue.keys.requires_grad and not list(queue.parameters())
    copy = KeyQueue(5, 2, seed=1)
    copy.load_state_dict(queue.state_dict())
    queue.push(new), copy.push(new)
    assert torch.equal(queue.keys, copy.keys) and torch.equal(queue.age, copy.age)


def test_queue_starts_from_its_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    assert torch.equal(KeyQueue(4, 3, seed=2).keys, KeyQueue(4, 3, seed=2).keys)
    assert not torch.equal(KeyQueue(4, 3, seed=2).keys, KeyQueue(4, 3, seed=3).keys)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(6, 3), (2, 4), (3,)])
def test_queue_names_keys_it_cannot_take(shape):
    with pytest.raises(SettingError, match="cannot take keys"):
        KeyQueue(5, 3).push(torch.zeros(shape))
