"""Interrupt a run and go on with it: the result is the same to the bit."""

import sys
import tempfile
from pathlib import Path

import torch

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn


def stop_in_recovery(event: snnprune.Event) -> None:
    """What Ctrl-C does; a callback is told of the stages search, recover, test, .. and their steps."""
    if event.stage == "recover" and event.step >= 10:
        raise KeyboardInterrupt


def main(data: str = "digits", epochs: float = 2) -> bool:
    train, val, _ = snnprune.load_data(data)
    model = digits_cnn()
    model.load_state_dict(torch.load(Path(__file__).parent.parent / "models" / "digits_cnn.pt"))
    config = snnprune.PruneConfig(target={"params": 0.3}, epochs=epochs)
    whole = snnprune.optimize(model, train, val, config)

    with tempfile.TemporaryDirectory() as folder:
        try:
            snnprune.optimize(model, train, val, config, checkpoint=folder, callbacks=[stop_in_recovery])
        except KeyboardInterrupt:
            print("stopped; kept:", sorted(p.name for p in Path(folder).iterdir()))
        # The same model, data and options: a checkpoint of anything else is refused.
        resumed = snnprune.optimize(model, train, val, config, checkpoint=folder, resume=True)

    a, b = whole.model.state_dict(), resumed.model.state_dict()
    equal = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    print("equal to the bit:", equal)
    return equal


if __name__ == "__main__":
    main(*sys.argv[1:2])
