import hashlib

import torch

from finetune.seed import derive, derive_each, permutation, seed_for


def test_a_seed_depends_on_everything_that_it_is_derived_from():
    seeds = [
        derive(1, "order"),
        derive(2, "order"),
        derive(1, "augment"),
        derive(1, "order", 0),
        derive(1, "order", 0, 0),
        derive(1, "order", 0, 1),
        derive(1, "order", 1, 0),
        derive(1, "order", 10),
        derive(11, "order", 0),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_process_and_version():
    digest = hashlib.blake2b(b"42\x00order\x000\x001", digest_size=8).hexdigest()
    assert derive(42, "order", 0, 1) == int(digest, 16) // 2


def test_names_that_are_not_text_can_be_hashed():
    assert derive(1, "split", "caf\udce9.jpg") != derive(1, "split", "cafe.jpg")


def test_a_permutation_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    order = permutation(100, derive(1, "order"))
    assert sorted(order) == list(range(100))
    assert order != list(range(100))
    assert order == permutation(100, derive(1, "order"))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_repeats_what_follows():
    seed_for(7, torch.device("cpu"))
    first = torch.rand(3)
    seed_for(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), first)


def test_seeding_a_gpu_reaches_its_own_generator_and_asks_no_other_device(monkeypatch):
    of_gpu = [torch.Generator(), torch.Generator()]
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(of_gpu))
    monkeypatch.setattr(torch, "manual_seed", None)
    untouched = of_gpu[0].get_state()
    seed_for(7, torch.device("cuda", 1))
    assert torch.rand(3, generator=of_gpu[1]).tolist() == torch.rand(3).tolist()
    assert torch.equal(of_gpu[0].get_state(), untouched)


def test_seeds_of_many_names_are_those_of_each():
    names = ["a/1.jpg", "ä", "\udcff", ""]
    assert derive_each(3, "split", names) == [derive(3, "split", name) for name in names]
