"""What `helm test` runs: the edge must list its models, and refuse who has no key. Standard library alone."""

import json
import os
import sys
import urllib.error
import urllib.request

ENDPOINT = os.environ["ENDPOINT"]
KEYS = [line.strip() for line in os.environ.get("KEYS", "").splitlines()]
KEY = next((key for key in KEYS if key and not key.startswith("#")), None)


def models(headers):
    request = urllib.request.Request(f"{ENDPOINT}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None


status, answer = models({"api-key": KEY} if KEY else {})
if status != 200 or not answer["data"]:
    sys.exit(f"{ENDPOINT}/v1/models answered {status}: {answer}")
print("models:", ", ".join(model["id"] for model in answer["data"]))
if KEY and models({})[0] != 401:
    sys.exit("the edge answers without a key")
print("ok")
