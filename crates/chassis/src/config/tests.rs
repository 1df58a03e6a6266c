//! Tests of `config`.

use super::*;

#[derive(Debug, Clone, Deserialize)]
struct Sample {
    service: ServiceConfig,
    key: Secret,
    limits: Limits,
}

#[derive(Debug, Clone, Deserialize)]
struct Limits {
    body_bytes: u64,
    names: Vec<String>,
}

impl Configured for Sample {
    fn service(&self) -> &ServiceConfig {
        &self.service
    }
    fn check(&self, problems: &mut Problems) {
        if self.limits.body_bytes == 0 {
            problems.add("limits.body_bytes", "must be at least 1");
        }
    }
    fn check_files(&self, _problems: &mut Problems) {}
}

const DEFAULTS: &str = r#"
    [edge]
    key = "k"
    [edge.service]
    listen = "127.0.0.1:0"
    admin_listen = ""
    drain_timeout_ms = 1000
    reload_ms = 1000
    [edge.service.telemetry]
    log = "info"
    log_format = "text"
    otlp_endpoint = ""
    trace_share = 1.0
    trace_content = false
    [edge.limits]
    body_bytes = 10
    names = []
"#;

fn load_with(file: &str, env: &[(&str, &str)]) -> Result<Sample, Problems> {
    let dir =
        std::env::temp_dir().join(format!("koine-config-{}-{}", std::process::id(), file.len()));
    std::fs::write(&dir, file).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load("edge", DEFAULTS, &Sources { file: Some(dir), env })
}

#[test]
fn environment_beats_file_beats_defaults() {
    let env = [("EDGE__LIMITS__NAMES", "[\"a\"]"), ("EDGE__KEY", "12345"), ("CHAT__KEY", "other")];
    let config = load_with("[edge.limits]\nbody_bytes = 20\n[chat]\nanything = 1\n", &env).unwrap();
    assert_eq!(config.limits.body_bytes, 20);
    assert_eq!(config.limits.names, ["a"]);
    assert_eq!(config.key.expose(), "12345");
    assert_eq!(config.service.drain_timeout_ms, 1000);
}

#[test]
fn all_problems_are_reported_at_once_with_their_names() {
    let file = "typo = 1\n[edge]\nkee = 1\n[edge.limits]\nbody_bytes = \"x\"\n[edge.service]\nlisten = 7\nextra = 1\n";
    let text = load_with(file, &[("EDGE__KEY__DEEPER", "1")]).unwrap_err().to_string();
    for expected in [
        "`typo`",
        "`edge.kee`: unknown option",
        "`edge.limits.body_bytes`",
        "`edge.service.listen`",
        "extra",
        "EDGE__KEY__DEEPER",
    ] {
        assert!(text.contains(expected), "{expected} is missing in: {text}");
    }
}

#[test]
fn a_share_of_traces_is_a_part_of_one() {
    let text =
        load_with("[edge.service.telemetry]\ntrace_share = 1.5\n", &[]).unwrap_err().to_string();
    assert!(text.contains("trace_share") && text.contains("0.0 to 1.0"), "{text}");
}

#[test]
fn a_secret_is_never_shown() {
    let config = load_with("[edge]\nkey = \"hush\"\n", &[]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
}
