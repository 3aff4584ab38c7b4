"""A data set of images that an index object lists, read with the OSS Python SDK in the workers of a DataLoader.

The index is one line of text: samples separated by commas, each `PATH:LABEL`.

    export OSS_ACCESS_KEY_ID=… OSS_ACCESS_KEY_SECRET=…
    python sdk_dataset.py https://oss-cn-hangzhou.aliyuncs.com BUCKET INDEX
"""

import io
import os
import sys

import numpy
import oss2
import torch
from oss2.credentials import EnvironmentVariableCredentialsProvider
from PIL import Image


class OSSDataset(torch.utils.data.Dataset):
    def __init__(self, endpoint, bucket, auth, index_file):
        self._parameters = auth, endpoint, bucket
        self._buckets = {}
        text = self._bucket().get_object(index_file).read().decode("utf-8")  # the body is bytes
        self._indices = [sample.strip() for sample in text.split(",") if sample.strip()]

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, index):
        path, _, label = self._indices[index].rpartition(":")  # a list; and a path may have colons of its own
        body = self._bucket().get_object(path).read()
        image = Image.open(io.BytesIO(body)).convert("RGB")
        return torch.from_numpy(numpy.array(image)), label

    def _bucket(self):
        """A bucket of this process: a connection that several workers inherited would mix up their answers."""
        process = os.getpid()
        if process not in self._buckets:
            self._buckets[process] = oss2.Bucket(*self._parameters)
        return self._buckets[process]

    def __getstate__(self):
        return {**self.__dict__, "_buckets": {}}  # for workers that are started anew


def main():
    endpoint, bucket, index_file = sys.argv[1:4]
    auth = oss2.ProviderAuth(EnvironmentVariableCredentialsProvider())
    dataset = OSSDataset(endpoint, bucket, auth, index_file)
    data_loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2)
    for images, labels in data_loader:
        print(tuple(images.shape), ",".join(labels))


if __name__ == "__main__":
    main()
