//! Versioned records.
