"""Read, write and append to objects with the OSS Python SDK.

export OSS_ACCESS_KEY_ID=… OSS_ACCESS_KEY_SECRET=…
python sdk_objects.py https://oss-cn-hangzhou.aliyuncs.com BUCKET FOLDER/
"""

import sys

import oss2
from oss2.credentials import EnvironmentVariableCredentialsProvider

endpoint, bucket_name, folder = sys.argv[1:4]
auth = oss2.ProviderAuth(EnvironmentVariableCredentialsProvider())
bucket = oss2.Bucket(auth, endpoint, bucket_name)

# Write an object.
bucket.put_object(folder + "greeting.txt", b"good morning, " * 100)

# Read all of it.
whole = bucket.get_object(folder + "greeting.txt").read()
print(f"whole: {len(whole)} bytes, {whole[:14]!r}")

# Read a range: both ends belong to it, so these are the first hundred bytes.
part = bucket.get_object(folder + "greeting.txt", byte_range=(0, 99)).read()
print(f"range: {len(part)} bytes")

# Append. The position has to be the length the object has; the answer says where the next one goes on.
log = folder + "log.txt"
position = bucket.head_object(log).content_length if bucket.object_exists(log) else 0
result = bucket.append_object(log, position, b"epoch 1\n")
result = bucket.append_object(log, result.next_position, b"epoch 2\n")
print(f"appended: {result.next_position} bytes")
