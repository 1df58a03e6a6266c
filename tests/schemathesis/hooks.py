"""What Schemathesis must know of this API beside its description: names that exist, and refusals that no schema can foretell."""

import json
import re

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# The deployments of the fakes, by what the end of a path asks of them.
DEPLOYMENTS = {"/images/embeddings": "pictures", "/embeddings": "vectors", "/chat/completions": "tools"}
# Fields that a rule over several fields blames, or one about the bytes of a file.
BEYOND_SCHEMAS = {
    "tool_choice",  # names one of `tools`
    "top_logprobs",  # needs `logprobs`
    "stream_options",  # needs `stream`
    "best_of",  # not below `n`, and not streamed above it
    "documents",  # 10,000 characters together
    "image.content",  # base64 of a file that is an image
    "prompt",  # token ids, which no safety policy can look at
}
# Base64 of a file that is an image.
IMAGE = re.compile(r"input\.\d+\.image|messages\.\d+\.content\.\d+")
# Codes of requests that are valid, but not for this model or policy.
BEYOND_MODEL = {
    "parameter_not_supported",
    "unsupported_parameter",
    "unsupported_value",
    "context_length_exceeded",
    "content_filter",
}


def deployment(path):
    return next((name for end, name in DEPLOYMENTS.items() if path.endswith(end)), "talk")


@schemathesis.hook
def before_call(context, case, kwargs):
    """Names a deployment that exists wherever a name was made up, so that requests come past the 404."""
    name = deployment(case.operation.path)
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = name
    for container in (case.path_parameters, case.query, case.headers):
        for key in ("deployment", "id", "model", "azureml-model-deployment", "x-ms-model-mesh-model-name"):
            if container and isinstance(container.get(key), str):
                container[key] = name


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops refusals of schema-valid requests that the API documents in words."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    if response.status_code == 413:
        return False
    try:
        body = json.loads(response.content)
        # The first version's errors are flat.
        error = body.get("error", body)
        field = error.get("target") or error.get("param") or ""
    except (ValueError, AttributeError):
        return True
    # `blocklistItems.0`: a regular expression that can be used.
    expected = field in BEYOND_SCHEMAS or field.startswith("blocklistItems.") or IMAGE.fullmatch(field)
    return not (error.get("code") in BEYOND_MODEL or expected)
