//! Names with `*` for anything, without regard to case: how configuration means several deployments at once.
//!
//! Separate because keys, tokens and limits all speak of deployments this way.

use regex::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// Patterns of names.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Globs {
    set: RegexSet,
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.set.patterns() == other.set.patterns()
    }
}

impl Eq for Globs {}

impl Globs {
    /// Whether any pattern fits `name`.
    #[must_use]
    pub fn fit(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

impl TryFrom<Vec<String>> for Globs {
    type Error = String;

    fn try_from(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.is_empty() || patterns.iter().any(String::is_empty) {
            return Err(
                "name at least one deployment, such as \"gpt-*\"; leave it out for all".to_owned()
            );
        }
        let patterns =
            patterns.iter().map(|p| format!("^{}$", regex::escape(p).replace(r"\*", ".*")));
        let mut builder = RegexSetBuilder::new(patterns);
        let built = builder.case_insensitive(true).dot_matches_new_line(true).build();
        built.map(|set| Self { set }).map_err(|cause| cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::try_from(patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_star_is_anything_and_everything_else_is_itself() {
        let some = globs(&["gpt-*", "phi.4"]);
        assert!(some.fit("gpt-4o") && some.fit("GPT-") && some.fit("Phi.4"));
        assert!(!some.fit("my-gpt-4o") && !some.fit("phi-4") && !some.fit(""));
        assert!(globs(&["*"]).fit("whatever"));
        assert!(globs(&["a*z"]).fit("a-to-z") && !globs(&["a*z"]).fit("a-to-z-"));
    }

    #[test]
    fn no_pattern_is_a_mistake_and_not_everything() {
        assert!(Globs::try_from(Vec::new()).is_err());
        assert!(Globs::try_from(vec![String::new()]).is_err());
    }
}
