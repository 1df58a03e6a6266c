//! Finds and loads the ONNX Runtime library.
//!
//! Separate because the library is a property of the process: it can be loaded once, and everything that runs a model borrows
//! it. Loading by path answers an error where loading by environment variable would panic.

use crate::error::OnnxError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Name of the environment in ONNX Runtime's own log lines.
const NAME: &str = "koine";

/// The library of this process; the environment inside must live as long as the process, since it cannot be built twice.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// A loaded ONNX Runtime; clones share it.
#[derive(Clone)]
pub struct Runtime {
    library: PathBuf,
    environment: Environment,
}

impl Runtime {
    /// Loads the shared library `library`. A second call with the same file answers the same runtime, so that several
    /// services can share a process.
    ///
    /// # Errors
    /// When the file is not a usable ONNX Runtime, or another one is loaded already.
    pub fn load(library: &Path) -> Result<Self, OnnxError> {
        let failed = |reason: String| OnnxError::Library { path: library.to_owned(), reason };
        // A relative path would be taken relative to the executable, so it is made absolute here.
        let file = library.canonicalize().map_err(|error| failed(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            if runtime.library == file {
                return Ok(runtime.clone());
            }
            return Err(OnnxError::OtherLibrary { path: file, loaded: runtime.library.clone() });
        }
        let builder = ort::init_from(&file).map_err(|error| failed(error.to_string()))?;
        let environment = builder
            .with_name(NAME)
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        // Below warnings the library writes a line per graph node, which costs even where nobody reads it.
        environment.set_log_level(LogLevel::Warning);
        let runtime = Self { library: file, environment };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("library", &self.library).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_the_file() {
        let error = Runtime::load(Path::new("/nowhere/libonnxruntime.so")).unwrap_err();
        assert!(matches!(error, OnnxError::Library { .. }));
        assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a library").unwrap();
        assert!(matches!(Runtime::load(file.path()), Err(OnnxError::Library { .. })));
    }
}
