//! Mistakes in a configuration: one message each, with the option and the remedy, all at once, and no secret in any of them.

use chassis::config::Sources;
use chassis::state::{StateConfig, check_access};
use chassis::{Problems, Secret};
use e2e::redis::Redis;
use standalone::Settings;

/// Stands wherever a secret may, and must come out nowhere.
const SECRET: &str = "hush-hush-hush-hush";

/// A file with one mistake, and words of its message: the option, what is wrong, the remedy.
const MISTAKES: [(&str, [&str; 3]); 18] = [
    ("[edg]\n", ["`edg`", "unknown table", "did you mean `edge`?"]),
    (
        "[edge.limits]\nbody_byte = 1\n",
        ["`edge.limits", "unknown option", "did you mean `body_bytes`?"],
    ),
    ("[edge.limit]\nbody_bytes = 1\n", ["`edge", "unknown option", "did you mean `limits`?"]),
    ("[chat.engine]\ncontext_token = 1\n", ["`chat.engine", "unknown option", "`context_tokens`"]),
    (
        "[edge.limits]\nbody_bytes = \"1 MB\"\n",
        ["`edge.limits.body_bytes`", "invalid type: text", "expected"],
    ),
    (
        "[edge.guard]\nwhen_unavailable = \"refues\"\n",
        ["`edge.guard.when_unavailable`", "unknown variant", "`refuse`"],
    ),
    (
        "[edge.chat]\nendpoints = [\"chat:50051\"]\n",
        ["`edge.chat.endpoints[0]`", "not a URL", "http://host:50051"],
    ),
    (
        "[edge.chat]\nendpoints = [\"https://chat\"]\n",
        ["`edge.chat.endpoints[0]`", "https", "`edge.doors.tls.ca_file`"],
    ),
    (
        "[edge.state]\nredis_url = \"http://redis\"\n",
        ["`edge.state.redis_url`", "not a URL", "redis://host:6379"],
    ),
    (
        "[edge.service]\nlisten = \"8080\"\n",
        ["`edge.service.listen`", "with a port", "127.0.0.1:8080"],
    ),
    (
        "[edge.service.telemetry]\notlp_endpoint = \"collector\"\n",
        ["`edge.service.telemetry.otlp_endpoint`", "not a URL", "http://"],
    ),
    (
        "[edge.service.telemetry]\nlog = \"edge=loud\"\n",
        ["`edge.service.telemetry.log`", "not a filter", "`info`"],
    ),
    (
        "[edge.auth]\nkey_file = \"/nowhere/keys.toml\"\n",
        ["`edge.auth.key_file`", "cannot read", "/nowhere/keys.toml"],
    ),
    (
        "[edge.tls]\ncertificate_file = \"/nowhere/tls.crt\"\nkey_file = \"/nowhere/tls.key\"\n",
        [
            "`edge.tls.certificate_file`: cannot read",
            "`edge.tls.key_file`: cannot read",
            "is the secret mounted",
        ],
    ),
    (
        "[edge.tls]\ncertificate_file = \"/nowhere/tls.crt\"\n",
        ["`edge.tls.key_file`", "is empty", "name the file"],
    ),
    ("[chat.door]\ntoken = \"short\"\n", ["`chat.door.token`", "16 or more", "openssl rand"]),
    (
        "[edge.api]\nremote_hosts = [\"https://x/\"]\n",
        ["`edge.api.remote_hosts[0]`", "name of a host", "`*`"],
    ),
    (
        "[edge.auth.jwt]\nissuers = [\"nowhere\"]\naudiences = [\"a\"]\nrequired = { a = \"b\" }\n",
        ["`edge.auth.jwt`", "not a URL", "https://host/path"],
    ),
];

fn problems(file: &str, env: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("koine.toml");
    std::fs::write(&path, file).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let loaded = Settings::load(&Sources { file: Some(path), env });
    let found = loaded.and_then(|settings| {
        settings.check_files()?;
        Ok(settings)
    });
    let text = found.map_or_else(|problems: Problems| problems.to_string(), |s| format!("{s:?}"));
    assert!(!text.contains(SECRET), "{text}");
    text
}

#[test]
fn every_kind_of_mistake_has_one_message_with_its_option_and_remedy() {
    for (file, expected) in MISTAKES {
        let text = problems(file, &[]);
        for expected in expected {
            assert!(text.contains(expected), "{expected} is missing for {file}: {text}");
        }
    }
}

#[test]
fn all_mistakes_of_all_tables_are_told_at_once() {
    let file = "[edge.limits]\nbody_byte = 1\nconnections = 0\n[edge.chat]\nendpoints = [\"ftp://x\"]\n\
        [chat.door]\ntoken = \"short\"\n[embedding]\nserv = []\n[unknown]\n";
    let text = problems(
        file,
        &[("EDGE__LIMITS__HEADER_BYTES", "1"), ("EDGE__LIMITZ__BODY_BYTES__X", "1")],
    );
    for expected in [
        "`edge.limits",
        "`edge.limits.connections`",
        "`edge.limits.header_bytes`",
        "`edge.chat.endpoints[0]`",
        "`chat.door.token`",
        "`embedding",
        "`unknown`",
    ] {
        assert!(text.contains(expected), "{expected} is missing in: {text}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_in_no_message() {
    for file in [
        format!("[edge.auth]\nkeys = \"{SECRET}\"\n"),
        format!("[edge.auth]\nkeys = [{{ key = \"{SECRET}\" }}]\n"),
        format!("[edge.auth]\nkeys = [\"{SECRET}\"\n"),
        format!("[edge.auth]\nkeys = [{SECRET}]\n"),
        format!("[edge.state]\nredis_url = \"http://:{SECRET}@redis\"\n"),
        format!("[edge.chat]\nendpoints = [\"http://user:{SECRET}@chat:50051\"]\n"),
        format!("[edge.doors]\ntoken = [\"{SECRET}\"]\n"),
        format!("[edge.limits]\nbody_bytes = \"{SECRET}\"\n"),
        format!("[edge.limits]\nbody_bytes = \"a\\\" {SECRET} \\\", expected\"\n"),
    ] {
        let text = problems(&file, &[]);
        assert!(text.starts_with("the configuration has"), "{file}: {text}");
    }
    // Of one that is right nothing shows either.
    let file = format!(
        "[edge.auth]\nkeys = [\"{SECRET}\"]\n[edge.doors]\ntoken = \"{SECRET}\"\n[chat.door]\ntoken = \"{SECRET}\"\n\
         [edge.state]\nredis_url = \"redis://:{SECRET}@redis:6379\"\n"
    );
    assert!(problems(&file, &[]).starts_with("Settings"));
    assert!(
        problems("", &[("EDGE__STATE__REDIS_URL", &format!("redis://:{SECRET}@redis"))])
            .starts_with("Settings")
    );
}

#[tokio::test]
async fn a_redis_that_refuses_the_password_is_a_mistake_and_one_that_is_gone_is_not() {
    let mut redis = Redis::start_with_password(SECRET).await;
    let with = |password: &str| StateConfig {
        redis_url: Secret::new(format!("{}?pass={password}", redis.url())),
        redis_ca_file: String::new(),
        timeout_ms: 5000,
    };
    let (right, wrong) = (with(SECRET), with("hush-hush"));
    let none = StateConfig { redis_url: Secret::new(redis.url()), ..right.clone() };
    check_access("edge", &right).await.unwrap();
    for config in [&wrong, &none] {
        let text = check_access("edge", config).await.unwrap_err().to_string();
        for expected in
            ["`edge.state.redis_url`", "refuses the user or the password", "correct those"]
        {
            assert!(text.contains(expected), "{expected} is missing in: {text}");
        }
        assert!(!text.contains("hush"), "{text}");
    }
    redis.crash();
    check_access("edge", &right).await.unwrap();
}
