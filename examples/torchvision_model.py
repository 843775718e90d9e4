"""A torchvision model, from trained weights to a verified smaller ONNX file."""

import sys

import torchvision

import snnprune


def main(data: str = "cifar10", epochs: float = 20, out: str = "runs/mobilenet") -> snnprune.Result:
    model = torchvision.models.mobilenet_v3_small(num_classes=10)  # then load your trained weights
    train, val, test = snnprune.load_data(data, batch_size=64)
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=epochs)
    result = snnprune.optimize(model, train, val, config, test=test)
    print(result.report)
    result.save(out)  # weights, structure, report and model.onnx, checked against each other
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
