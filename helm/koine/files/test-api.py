"""What `helm test` runs: the edge must list its models, and refuse who has no key. Standard library alone."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

ENDPOINT = os.environ["ENDPOINT"]
SECRET = os.environ.get("KEYS", "")
# A table of named keys holds their hashes alone.
HASHED = "[[keys]]" in SECRET
KEY = next((k for k in map(str.strip, SECRET.splitlines()) if k and not k.startswith("#")), None) if not HASHED else None
OPEN = os.environ["OPEN"] == "true"
# The certificate of an edge that speaks HTTPS is for the names that clients use, not for those within the cluster.
TLS = ssl._create_unverified_context()


def models(headers):
    request = urllib.request.Request(f"{ENDPOINT}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30, context=TLS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None


if not OPEN and models({})[0] != 401:
    sys.exit("the edge answers without a key")
if OPEN or KEY:
    status, answer = models({"api-key": KEY} if KEY else {})
    if status != 200 or not answer["data"]:
        sys.exit(f"{ENDPOINT}/v1/models answered {status}: {answer}")
    print("models:", ", ".join(model["id"] for model in answer["data"]))
print("ok")
