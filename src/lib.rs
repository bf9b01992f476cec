//! Attune
