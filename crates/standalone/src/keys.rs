//! `koine keys new`: a key, and its entry for the file of `edge.auth.key_file`.
//!
//! Separate because `koine up` makes a key for its run by the same means. The key is a caller's to keep; the file holds its hash.

use chassis::Secret;
use rand::Rng as _;
use rand::distr::Alphanumeric;

/// Letters and digits of a key: over 190 bits.
const LENGTH: usize = 32;

/// A key, and how the key file knows it.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// For the caller; nobody can show it again.
    pub key: Secret,
    /// Lines of TOML.
    pub entry: String,
}

/// Makes a key called `name`.
///
/// # Errors
/// When `name` cannot be the name of a key.
pub fn new(name: &str) -> Result<NewKey, String> {
    if !edge::auth::is_key_name(name) {
        return Err(format!(
            "`{name}` cannot be the name of a key: it must be 1 to 64 letters, digits, dots, dashes or underscores"
        ));
    }
    let key = random();
    let hash = edge::auth::hash_of(key.expose());
    let entry = format!(
        "[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n\
         # routes = [\"chat\", \"embeddings\"]\n# deployments = [\"gpt-*\"]\n\
         # expires = 2030-01-01T00:00:00Z\n# class = \"standard\""
    );
    Ok(NewKey { key, entry })
}

/// A key without a name.
#[must_use]
pub fn random() -> Secret {
    let letters = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from);
    Secret::new(letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_holds_the_hash_and_not_the_key() {
        let new = new("team-a").unwrap();
        assert_eq!(new.key.expose().len(), LENGTH);
        assert!(new.entry.contains(&edge::auth::hash_of(new.key.expose())));
        assert!(
            !new.entry.contains(new.key.expose()) && !format!("{new:?}").contains(new.key.expose())
        );
        assert!(new.entry.parse::<toml::Table>().unwrap()["keys"][0]["name"].is_str());
        assert_ne!(random().expose(), random().expose());
    }

    #[test]
    fn a_name_must_fit_the_key_file() {
        assert!(super::new("team a").is_err() && super::new("").is_err());
    }
}
