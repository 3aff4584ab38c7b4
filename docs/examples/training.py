"""The training script of the PAI guide, with its import line changed and its gaps filled: a model is trained on images
in OSS, saved there while it trains, and goes on at the same sample when it is started again.

    python docs/examples/training.py --endpoint https://oss-cn-hangzhou-internal.aliyuncs.com \
        --data oss://BUCKET/images/ --checkpoint oss://BUCKET/models/resnet18.pt --cred-path CREDENTIALS

Images lie in one folder for each class (CLASS/NAME.JPEG). `accimage` is the guide's decoder; without it write
`PIL.Image.open(data).convert("RGB")`. What differs from the guide is marked with "ours".
"""

import argparse

import accimage
import torch
from torchdata.stateful_dataloader import StatefulDataLoader  # ours: the guide's DataLoader forgets where it was
from torchvision import models, transforms

from csi.errors import ObjectNotFound
from csi.torch import OssCheckpoint, OssMapDataset

parser = argparse.ArgumentParser()
parser.add_argument("--endpoint", required=True)
parser.add_argument("--region", default="")
parser.add_argument("--data", required=True)
parser.add_argument("--checkpoint", required=True)
parser.add_argument("--cred-path", default="")
parser.add_argument("--config-path", default="")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--workers", type=int, default=4)
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--classes", type=int, default=1000)
parser.add_argument("--save-every", type=int, default=1000, help="steps")


def main(args):
    checkpoint = OssCheckpoint(
        endpoint=args.endpoint, cred_path=args.cred_path, config_path=args.config_path, region=args.region
    )
    model = models.__dict__["resnet18"](num_classes=args.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = torch.nn.CrossEntropyLoss()
    state = load(checkpoint, args.checkpoint)

    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            normalize,
        ]
    )

    def read_and_transform(data):
        value = transform(accimage.Image(data.read()))
        folder, name = data.key.split("/")[-2:]
        return value, int(folder), name

    dataset = OssMapDataset.from_prefix(
        args.data,
        endpoint=args.endpoint,
        transform=read_and_transform,
        cred_path=args.cred_path,
        config_path=args.config_path,
        region=args.region,
    )
    data_loader = StatefulDataLoader(dataset, batch_size=args.batch_size, num_workers=args.workers, shuffle=True)

    first_epoch = step = 0
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        data_loader.load_state_dict(state["data_loader"])
        first_epoch, step = state["epoch"], state["step"]
        print(f"going on after step {step}", flush=True)
    for epoch in range(first_epoch, args.epochs):
        for images, target, names in data_loader:
            step += 1
            optimizer.zero_grad()
            loss = criterion(model(images), target)
            loss.backward()
            optimizer.step()
            print(f"epoch {epoch} step {step} loss {loss.item():.4f}: {' '.join(names)}", flush=True)
            if step % args.save_every == 0:
                save(checkpoint, args.checkpoint, model, optimizer, data_loader, epoch, step)
        save(checkpoint, args.checkpoint, model, optimizer, data_loader, epoch + 1, step)


def load(checkpoint, uri):
    """ours: None where nothing was saved yet"""
    try:
        with checkpoint.reader(uri) as reader:
            return torch.load(reader)
    except ObjectNotFound:
        return None


def save(checkpoint, uri, model, optimizer, data_loader, epoch, step):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "data_loader": data_loader.state_dict(),
        "epoch": epoch,
        "step": step,
    }
    with checkpoint.writer(uri) as writer:
        torch.save(state, writer)
    print(f"saved after step {step}", flush=True)


if __name__ == "__main__":
    main(parser.parse_args())
