//! The options that every service has, under `service` in its table.

use super::Problems;
use crate::telemetry::TelemetryConfig;
use serde::Deserialize;

/// The `service` table that every service has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Address of the service's own door.
    pub listen: String,
    /// Address of the admin port; empty switches it off.
    pub admin_listen: String,
    /// How long new requests are still taken after SIGTERM, while readiness is off already.
    pub drain_delay_ms: u64,
    /// How long running requests may go on then.
    pub drain_timeout_ms: u64,
    /// How often the configuration file is looked at.
    pub reload_ms: u64,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl ServiceConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        for (option, address, may_be_empty) in
            [("listen", &self.listen, false), ("admin_listen", &self.admin_listen, true)]
        {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() && !(may_be_empty && address.is_empty()) {
                let message =
                    format!("`{address}` is not an address with a port, such as 127.0.0.1:8080");
                problems.add(&format!("service.{option}"), message);
            }
        }
        if self.reload_ms == 0 {
            problems.add("service.reload_ms", "must be at least 1 millisecond");
        }
        self.telemetry.check(problems);
    }
}
