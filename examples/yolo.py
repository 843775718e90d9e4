"""A YOLO of ultralytics: its own loss is learned from, and its mean on the validation data is what is reported."""

import sys

import torch

import snnprune

try:
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import DEFAULT_CFG
except ImportError:
    DetectionModel = None


def scenes(batches: int, seed: int, side: int = 64) -> list[dict[str, torch.Tensor]]:
    """Batches of four images with a bright square each, in the form of ultralytics' own loaders."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        images = 0.3 * torch.rand(4, 3, side, side, generator=random)
        places = torch.randint(4, side - 28, (4, 2), generator=random)
        for image, (x, y) in zip(images, places.tolist(), strict=True):
            image[:, y : y + 24, x : x + 24] += 0.6
        boxes = torch.cat([(places + 12) / side, torch.full((4, 2), 24 / side)], 1)  # centre and size, in [0, 1]
        found.append({"img": images, "cls": torch.zeros(4, 1), "bboxes": boxes, "batch_idx": torch.arange(4.0)})
    return found


def loss(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum of the losses of boxes, classes and distances; ultralytics gives it times the number of images."""
    return model(batch)[0].sum() / len(batch["img"])


def main(batches: int = 8, epochs: float = 2, before: int = 2) -> snnprune.Result | None:
    if DetectionModel is None:
        print("this example needs ultralytics: pip install ultralytics")
        return None
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=1, verbose=False)  # or YOLO("yolov8n.pt").model
    model.args = DEFAULT_CFG  # weights of the loss, which ultralytics' trainer sets
    train, val = scenes(batches, 0), scenes(max(1, batches // 4), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(before):
        for batch in train:
            optimizer.zero_grad()
            loss(model.train(), batch).backward()
            optimizer.step()
    config = snnprune.PruneConfig(target={"macs": 0.7}, epochs=epochs, lr=1e-3)
    images = train[0]["img"][:2]
    result = snnprune.optimize(model, train, val, config, example_inputs=images, loss_fn=loss)
    print(result.report)
    return result


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
