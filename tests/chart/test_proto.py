"""The protos: what `make lint` says of them, and that it would say so of protos that are wrong."""

import shutil

import proto
import pytest


@pytest.fixture
def changed(tmp_path):
    """A function that copies the protos with one word of one file replaced."""

    def change(name, old, new):
        folder = shutil.copytree(proto.PROTO, tmp_path / "proto")
        file = folder / f"inference/{name}/v1/{name}.proto"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        return folder

    return change


def test_the_protos_keep_the_rules():
    assert proto.lint() == ""


def test_nothing_that_was_released_is_broken():
    assert proto.broken() == ""


def test_a_schema_that_is_released_anew_is_the_same_bytes(tmp_path):
    first, second = tmp_path / "a.binpb", tmp_path / "b.binpb"
    assert proto.release(first) == proto.release(second) == ""
    assert first.read_bytes() == second.read_bytes()


UNRULY = {
    "an enum without its zero": ("chat", "ROLE_UNSPECIFIED = 0", "ROLE_NOBODY = 0"),
    "a request that is not the call's own": ("embedding", "rpc Embed(EmbedRequest)", "rpc Embed(ListModelsRequest)"),
    "a name in capitals": ("chat", "string tool_call_id = 5", "string toolCallId = 5"),
    "another package": ("content_safety", "package inference.content_safety.v1", "package inference.safety.v1"),
}


@pytest.mark.parametrize("what", UNRULY)
def test_a_proto_against_the_rules_is_told_with_its_place(changed, what):
    name, _, _ = UNRULY[what]
    assert f"inference/{name}/v1/{name}.proto:" in proto.lint(changed(*UNRULY[what]))


BREAKS = {
    "a field of another number": ("chat", "string model = 1;", "string model = 15;"),
    "a field of another type": ("embedding", "optional uint32 dimensions = 4", "optional string dimensions = 4"),
    "a field of another name": ("content_safety", "string policy = 1;", "string rule = 1;"),
    "a field that is gone": ("chat", "bool strict = 4;\n}\n\nmessage ToolChoice", "}\n\nmessage ToolChoice"),
    "a call that is gone": ("content_safety", "rpc ListPolicies(ListPoliciesRequest) returns (ListPoliciesResponse);", ""),
    "a call that no longer streams": ("chat", "returns (stream GenerateResponse)", "returns (GenerateResponse)"),
    "an enum value of another number": ("chat", "ROLE_TOOL = 5", "ROLE_TOOL = 6"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_change_that_breaks_clients_is_told(changed, what):
    name, _, _ = BREAKS[what]
    assert f"inference/{name}/v1/{name}.proto:" in proto.broken(changed(*BREAKS[what]))


def test_an_addition_breaks_nothing(changed):
    assert proto.broken(changed("chat", "string tool_call_id = 5;", "string tool_call_id = 5;\n  // Another.\n  string more = 6;")) == ""
