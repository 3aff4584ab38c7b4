"""ossfuse-csi: a bucket of Alibaba Cloud OSS as an ordinary folder, for training pods."""

__version__ = "0.1.0"
