//! Who is calling, and how often they may.

pub mod jwt;
pub mod layer;
