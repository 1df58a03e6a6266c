//! Words for what a parser found: short, with the nearest known name, and without the value, which may be a secret.
//!
//! Separate because they are made of the messages of `serde`, whose few forms are known here and nowhere else.

/// Names that are less alike (Jaro-Winkler, 0 to 1) are not suggested.
const ALIKE: f64 = 0.75;

/// `; did you mean …?` with the nearest of `known`, or nothing.
pub(super) fn nearest<S: AsRef<str>>(name: &str, known: &[S]) -> String {
    let likeness =
        |known: &S| (strsim::jaro_winkler(name, known.as_ref()), known.as_ref().to_owned());
    let best = known.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE)
        .map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}

/// What `message`, a parser's about the option at `path`, comes to.
pub(super) fn plain(path: &str, message: &str) -> String {
    if let Some((_, expected)) = message.split_once("unknown field `") {
        let name = expected.split('`').next().unwrap_or_default();
        let known: Vec<&str> = names(expected.split_once("expected").map_or("", |(_, rest)| rest));
        // Where the path does not end in the name, the name is all that says which.
        let which = if path.ends_with(name) { String::new() } else { format!(" `{name}`") };
        return format!("unknown option{which}{}", nearest(name, &known));
    }
    without_text(message)
}

/// The names in backticks.
fn names(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

/// `invalid type: string "…", expected` without what the string is.
fn without_text(message: &str) -> String {
    let Some((before, rest)) = message.split_once("string \"") else { return message.to_owned() };
    // The value may hold quotes; what was expected comes last.
    let Some((_, expected)) = rest.rsplit_once("\", expected") else {
        return format!("{before}a text that does not fit");
    };
    format!("{before}text, expected{expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(
            nearest("boddy_bytes", &["body_bytes", "names"]),
            "; did you mean `body_bytes`?"
        );
        assert_eq!(nearest("zzz", &["body_bytes", "names"]), "");
    }

    #[test]
    fn no_value_is_in_a_message() {
        let said =
            plain("edge.auth.keys", "invalid type: string \"hu\\\"sh\", expected a sequence");
        assert_eq!(said, "invalid type: text, expected a sequence");
        let said = plain("a.bod", "unknown field `bod`, expected one of `body`, `names`");
        assert_eq!(said, "unknown option; did you mean `body`?");
        assert_eq!(plain("a", "missing field `x`"), "missing field `x`");
    }
}
