"""Save and load a model with the OSS Python SDK.

    export OSS_ACCESS_KEY_ID=… OSS_ACCESS_KEY_SECRET=…
    python sdk_model.py https://oss-cn-hangzhou.aliyuncs.com BUCKET models/model.pt

The whole model is in memory a second time, and is sent by one request: at most 5 GB. `csi.torch.OssCheckpoint` has
neither limit.
"""

import sys
from io import BytesIO

import oss2
import torch
from oss2.credentials import EnvironmentVariableCredentialsProvider

endpoint, bucket_name, path = sys.argv[1:4]
auth = oss2.ProviderAuth(EnvironmentVariableCredentialsProvider())
bucket = oss2.Bucket(auth, endpoint, bucket_name)
model = torch.nn.Linear(10, 2)

# Save.
buffer = BytesIO()
torch.save(model.state_dict(), buffer)
bucket.put_object(path, buffer.getvalue())

# Load.
buffer = BytesIO(bucket.get_object(path).read())
restored = torch.nn.Linear(10, 2)
restored.load_state_dict(torch.load(buffer))
print("the same" if torch.equal(model.weight, restored.weight) else "different")
