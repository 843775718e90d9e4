"""Use an exported model where there is no PyTorch: read its metadata, normalise, run, compare."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import snnprune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
from digits_cnn import digits_cnn


def export(data: str, out: str) -> tuple[torch.nn.Module, np.ndarray, np.ndarray]:
    """A short run, and the raw test images (n, channels, height, width) with their labels."""
    train, val, test = snnprune.load_data(data)
    model = digits_cnn()
    model.load_state_dict(torch.load(Path(__file__).parent.parent / "models" / "digits_cnn.pt"))
    result = snnprune.optimize(model, train, val, snnprune.PruneConfig(target={"params": 0.3}, epochs=1))
    result.save(out)
    return result.model, test.images.numpy(), test.labels.numpy()


def predict(file: Path, pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Logits (n, classes) and the names of the classes, from the file and bytes alone."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    print("served by", session.get_providers()[0])
    recorded = session.get_modelmeta().custom_metadata_map  # every value is JSON
    norm = json.loads(recorded["snnprune.normalization"])
    mean, std = (np.array(norm[key], dtype=np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    inputs = (pixels.astype(np.float32) / 255 - mean) / std
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return logits, json.loads(recorded["snnprune.classes"])


def main(data: str = "digits", out: str = "runs/onnx-runtime") -> float:
    model, pixels, labels = export(data, out)
    logits, classes = predict(Path(out) / "model.onnx", pixels)
    print("first image:", classes[int(logits[0].argmax())], f"accuracy: {np.mean(logits.argmax(1) == labels):.2%}")

    norm = json.loads((Path(out) / "structure.json").read_text())["normalization"]
    mean, std = (torch.tensor(norm[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        here = model((torch.from_numpy(pixels).float() / 255 - mean) / std)
    gap = float((here - torch.from_numpy(logits)).abs().max())
    print(f"largest difference from PyTorch: {gap:.1e}")
    return gap


if __name__ == "__main__":
    main(*sys.argv[1:2])
