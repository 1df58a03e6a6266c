//! Where weights come from: catalog, fetch, verify, convert, a directory.
