//! All four services in one process, on loopback, and the command line.
