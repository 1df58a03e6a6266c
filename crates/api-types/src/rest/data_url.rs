//! Data URLs: files that travel inside a request as base64.
//!
//! Looked at when the request is read, decoded only when somebody needs the bytes.

use super::json::At;
use crate::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `data:<media type>;base64,<data>`, borrowed from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataUrl<'a> {
    /// For example `image/png`.
    pub media_type: &'a str,
    /// Standard base64 with padding, not checked yet.
    pub base64: &'a str,
}

impl<'a> DataUrl<'a> {
    /// Takes a data URL apart; none when `url` is something else or not in base64.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_at_checked("data:".len())?;
        let (head, base64) = rest.split_once(',')?;
        let head = head.strip_suffix(";base64")?;
        let media_type = head.split(';').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("data:").then_some(Self { media_type, base64 })
    }

    /// Whether it says to be an image.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.media_type
            .split_once('/')
            .is_some_and(|(kind, format)| kind.eq_ignore_ascii_case("image") && !format.is_empty())
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// A fault at `target` (a dotted path) when the data is not base64 or is empty.
    pub fn decode(&self, target: &str) -> Result<Vec<u8>, Fault> {
        match STANDARD.decode(self.base64.trim_end()) {
            Ok(bytes) if bytes.is_empty() => {
                Err(Fault::invalid(target, format!("`{target}` holds no data")))
            }
            Ok(bytes) => Ok(bytes),
            Err(cause) => Err(not_base64(target, &cause)),
        }
    }
}

/// Decodes bare base64.
///
/// # Errors
/// A fault at `target` (a dotted path) when it is not base64 or empty.
pub fn decode_base64(text: &str, target: &str) -> Result<Vec<u8>, Fault> {
    DataUrl { media_type: "", base64: text }.decode(target)
}

fn not_base64(target: &str, cause: &base64::DecodeError) -> Fault {
    Fault::invalid(target, format!("`{target}` is not standard base64: {cause}"))
}

/// Checks the form of a URL that must lead to an image: https, http, or a data URL of an image.
pub(super) fn check_image_url(url: &str, at: At<'_>) -> Result<(), Fault> {
    const FORMS: &str =
        "must be an https URL or a data URL of the form `data:image/<format>;base64,<data>`";
    let fits = match DataUrl::parse(url) {
        Some(data) => data.is_image(),
        None => has_web_scheme(url),
    };
    if fits { Ok(()) } else { Err(at.fault(FORMS)) }
}

/// Checks the form of a URL that must lead to a sound: https, http, or a data URL in base64.
pub(super) fn check_audio_url(url: &str, at: At<'_>) -> Result<(), Fault> {
    const FORMS: &str =
        "must be an https URL or a data URL of the form `data:audio/<format>;base64,<data>`";
    let fits = DataUrl::parse(url).is_some() || has_web_scheme(url);
    if fits { Ok(()) } else { Err(at.fault(FORMS)) }
}

fn has_web_scheme(url: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| {
        url.split_at_checked(scheme.len())
            .is_some_and(|(head, rest)| head.eq_ignore_ascii_case(scheme) && !rest.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_taken_apart_and_decoded() {
        let url = DataUrl::parse("data:image/png;base64,aGk=").unwrap();
        assert_eq!(url.media_type, "image/png");
        assert_eq!(url.decode("input.0.image").unwrap(), b"hi");
    }

    #[test]
    fn parameters_of_the_media_type_are_left_out() {
        let url = DataUrl::parse("DATA:audio/wav;rate=8000;base64,aGk=").unwrap();
        assert_eq!(url.media_type, "audio/wav");
    }

    #[test]
    fn what_is_no_data_url_is_none() {
        for url in ["", "data:", "aGk=", "data:image/png,hi", "https://x/y.png", "dätä:,;base64,"]
        {
            assert_eq!(DataUrl::parse(url), None, "{url}");
        }
    }

    #[test]
    fn bad_base64_names_its_field() {
        let url = DataUrl::parse("data:image/png;base64,a b").unwrap();
        let fault = url.decode("input.3.image").unwrap_err();
        assert_eq!(fault.target.as_deref(), Some("input.3.image"));
        assert!(DataUrl::parse("data:image/png;base64,").unwrap().decode("x").is_err());
    }
}
