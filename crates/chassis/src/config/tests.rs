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
    drain_delay_ms = 0
    drain_timeout_ms = 1000
    reload_ms = 1000
    [edge.service.telemetry]
    log = "info"
    log_format = "text"
    otlp_endpoint = ""
    trace_share = 1.0
    trace_content = false
    [edge.service.telemetry.otlp_tls]
    ca_file = ""
    certificate_file = ""
    key_file = ""
    server_name = ""
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
fn a_collector_with_tls_needs_to_be_known_by_its_authority() {
    let file = |more: &str| format!("[edge.service.telemetry]\n{more}\n");
    let refused = |more: &str| load_with(&file(more), &[]).unwrap_err().to_string();
    let text = refused("otlp_endpoint = 'https://collector:4317'");
    assert!(text.contains("`edge.service.telemetry.otlp_endpoint`: begins with https"), "{text}");
    assert!(text.contains("otlp_tls.ca_file"), "{text}");
    let text = refused("otlp_endpoint = 'https://collector/v1/traces'\notlp_tls.ca_file = '/ca'");
    assert!(text.contains("otlp_endpoint`") && text.contains("without user and path"), "{text}");
    let text = refused("otlp_endpoint = 'http://collector:4317'\notlp_tls.ca_file = '/ca'");
    assert!(text.contains("otlp_tls.ca_file`: is set, but"), "{text}");
    let known = file("otlp_endpoint = 'https://collector:4317'\notlp_tls.ca_file = '/nowhere/ca'");
    let problems = Problems::in_files("edge", &load_with(&known, &[]).unwrap()).unwrap_err();
    let text = problems.to_string();
    assert!(text.contains("`edge.service.telemetry.otlp_tls.ca_file`: cannot read"), "{text}");
}

#[test]
fn a_secret_is_never_shown() {
    let config = load_with("[edge]\nkey = \"hush\"\n", &[]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
}
