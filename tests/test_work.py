"""One training from store to store: what is resumed, what is left, what goes wrong in one line."""

import pytest
import torch

from sltlib import Experiment, build_model
from sltlib.engine import checkpoints, work
from sltlib.engine.checkpoints import Checkpoint
from sltlib.engine.store import Store

TINY = Experiment("fashion", model="linear", image_size=8, train_images=100, epochs=2, batch_size=50, lr=0.01)
TICKET = TINY.replace(model="conv2", width=0.1, search="edge-popup", sparsity=0.5, weights="binary", timesteps=2)


def test_a_results_network_is_its_ticket_on_its_experiment_ready_to_look(tmp_path):
    result = work.train(TICKET, Store(tmp_path))
    network, x = result.network(), torch.rand(3, 1, 8, 8)
    assert not network.training and not any(part.training for part in network.modules())
    with torch.no_grad():
        assert torch.equal(network(x), result.ticket().apply(build_model(TICKET)).eval()(x))


def files_of(result):
    return {p.name: p.read_bytes() for p in result.path.iterdir() if p.name not in ("provenance.json", "manifest.json")}


def test_a_full_disk_at_every_checkpoint_ends_no_training_and_moves_no_number(tmp_path, monkeypatch, capsys):
    whole = work.train(TINY, Store(tmp_path / "a"))

    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    monkeypatch.setattr(checkpoints, "write", full)
    result = work.train(TINY, Store(tmp_path / "b"))
    assert files_of(result) == files_of(whole)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all("not saved" in line and "No space left" in line for line in said)


def test_a_checkpoint_of_other_code_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    store, save = Store(tmp_path / "a"), Checkpoint.save

    def stop(self, step, *state):
        save(self, step, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stop)
        patch.setattr(work, "source_hash", lambda: "of another day")
        with pytest.raises(KeyboardInterrupt):
            work.train(TINY, store)
    assert checkpoints.keys(store.root) == [TINY.key]
    result = work.train(TINY, store)
    assert result.provenance["resumed"] == 0 and "made by other code" in capsys.readouterr().err
    assert checkpoints.keys(store.root) == []


def test_what_was_foreseen_is_one_line_and_all_else_a_traceback():
    def said(error):
        try:
            raise error
        except Exception as caught:
            return work.reason(caught)

    assert said(work.Foreseen("lower lr=1e+38")) == "lower lr=1e+38"
    assert said(OSError(28, "No space left on device", "/a")) == "[Errno 28] No space left on device: '/a'"
    for error in (ValueError("boom"), RuntimeError("boom"), OSError("boom")):
        assert said(error).startswith("Traceback") and "boom" in said(error)


def test_a_loss_that_is_not_finite_is_foreseen(tmp_path):
    broken = TINY.replace(lr=1e38, optimizer="sgd", schedule="constant")
    with pytest.raises(work.Foreseen, match="lower lr"):
        work.train(broken, Store(tmp_path))
