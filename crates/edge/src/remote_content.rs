//! URLs of images and sounds in a conversation: which of them a model server may be given, to fetch for itself.
//!
//! Separate because whoever writes a URL makes a server inside the network fetch it (server-side request forgery). The edge itself
//! fetches none. The invariant: what is not on the list of hosts goes no further.

use api_types::Fault;
use api_types::rest::DataUrl;
use api_types::rest::chat_completions::{ChatMessage, ContentPart};
use http::Uri;

/// Whether every URL in `messages` is a data URL or leads to one of `hosts`.
///
/// # Errors
/// 400 at the first that does not.
pub fn check(messages: &[ChatMessage], hosts: &[String]) -> Result<(), Fault> {
    for (i, message) in messages.iter().enumerate() {
        for (j, part) in message.content.iter().enumerate() {
            let (url, field) = match part {
                ContentPart::ImageUrl { url, .. } => (url, "image_url.url"),
                ContentPart::AudioUrl(url) => (url, "audio_url.url"),
                ContentPart::Text(_) | ContentPart::InputAudio { .. } => continue,
            };
            if DataUrl::parse(url).is_none() && !allowed(url, hosts) {
                let target = format!("messages.{i}.content.{j}.{field}");
                let message = format!(
                    "`{target}` leads to a host that this server does not fetch from; send a data URL of the form `data:<type>;base64,<data>`"
                );
                return Err(Fault::invalid(target, message));
            }
        }
    }
    Ok(())
}

fn allowed(url: &str, hosts: &[String]) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some("https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return false;
    };
    // `https://allowed.example@elsewhere/`: readers differ on whose host that is.
    let plain = !authority.as_str().contains(['@', '\\', '%']);
    plain && hosts.iter().any(|host| fits(authority.host(), host))
}

/// `*` is any host, `*.example.com` any below that.
fn fits(host: &str, pattern: &str) -> bool {
    let (host, pattern) = (host.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    match pattern.strip_prefix('*') {
        Some(ending) => host.ends_with(ending) && host.len() > ending.len(),
        None => host == pattern,
    }
}

/// Whether `pattern` can stand in the list.
#[must_use]
pub fn is_host(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    pattern == "*" || (!name.is_empty() && name.chars().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_the_list_are_led_to() {
        let hosts = ["images.example.com".to_owned(), "*.cdn.example".to_owned()];
        for (url, expected) in [
            ("https://images.example.com/a.png", true),
            ("https://IMAGES.example.com:443/a.png", true),
            ("https://eu.cdn.example/a.png", true),
            ("https://cdn.example/a.png", false),
            ("https://evilcdn.example/a.png", false),
            ("http://images.example.com/a.png", false),
            ("https://images.example.com@169.254.169.254/", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://images.example.com\\@evil.example/", false),
            ("https:images.example.com", false),
        ] {
            assert_eq!(allowed(url, &hosts), expected, "{url}");
            assert!(!allowed(url, &[]), "{url}");
        }
        assert!(allowed("https://anywhere.example/x", &["*".to_owned()]));
        assert!(is_host("*") && is_host("a.b") && is_host("*.a.b"));
        assert!(!is_host("https://a.b") && !is_host("") && !is_host("a*") && !is_host("a/b"));
    }
}
