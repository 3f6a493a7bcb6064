//! What was measured: for people as tables and plots, for programs as JSON.

mod json;
mod svg;
mod table;

pub(crate) use self::json::to_json;
pub(crate) use self::svg::write_plots;
pub(crate) use self::table::to_table;

#[cfg(test)]
mod tests;
