"""What `helm test` runs: the edge must refuse who has no key, list its models, and have one say a word and one make a vector.
Standard library alone."""

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
# A first answer waits for a place in the batch, and for pods that have just come.
WITHIN = 120
WORD = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 1}


def ask(path, body=None, key=KEY):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(ENDPOINT + path, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=WITHIN, context=TLS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode(errors="replace")


def good(path, body=None):
    status, answer = ask(path, body)
    if status != 200:
        sys.exit(f"{ENDPOINT}{path} answered {status}: {answer}")
    return answer


def models_that(models, *routes):
    return [model["id"] for model in models if set(routes) & set(model["routes"])]


def main():
    if not OPEN and ask("/v1/models", key=None)[0] != 401:
        sys.exit("the edge answers without a key")
    if not (OPEN or KEY):
        print("the edge refuses who has no key; to ask more, name one in test.existingSecret")
        return
    models = good("/v1/models")["data"]
    print("models:", ", ".join(model["id"] for model in models))
    talk, embed = models_that(models, "/chat/completions"), models_that(models, "/embeddings")
    if os.environ["CHAT"] == "true":
        if not models_that(models, "/chat/completions", "/completions"):
            sys.exit("no model is for chat, and the chart leads to a chat service")
        for model in talk[:1]:
            answer = good("/v1/chat/completions", {"model": model, **WORD})
            print(f"chat: {model} wrote {answer['usage']['completion_tokens']} token")
    if os.environ["EMBEDDING"] == "true":
        if not models_that(models, "/embeddings", "/images/embeddings"):
            sys.exit("no model makes vectors, and the chart leads to an embedding service")
        for model in embed[:1]:
            answer = good("/v1/embeddings", {"model": model, "input": ["a fruit"]})
            print(f"embeddings: {model} made {len(answer['data'][0]['embedding'])} numbers")
    print("ok")


main()
