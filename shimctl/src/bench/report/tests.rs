//! The reports of figures that are known.

use super::super::measured::{Outcome, Reading, Report};
use super::*;

fn report() -> Report {
    let times = |create: [f64; 2]| create.map(|value| Reading::new("create", "ms", value)).to_vec();
    let steps = |by: f64| {
        [(1, 100.0), (10, 1000.0)]
            .map(|(at, value)| Reading::new("pss", "KiB", value * by).at(at))
            .to_vec()
    };
    Report {
        shims: vec!["native".to_owned(), "go<1>".to_owned()],
        rounds: 2,
        scenarios: vec![
            Outcome::of("life", &[times([1.0, 2.0]), times([3.0, 6.0])]),
            Outcome::of("density", &[steps(1.0), steps(2.5)]),
        ],
    }
}

#[test]
fn a_table_has_medians_and_their_ratios() {
    let expect = "\
| life: median, p95 (ratio) | native          | go<1>           |
|---------------------------|-----------------|-----------------|
| create, ms                | 1.50, 2 (1.0×)  | 4.50, 6 (3.0×)  |

| density: at containers | shim   | 1          | 10          |
|------------------------|--------|------------|-------------|
| pss, KiB               | native | 100 (1.0×) | 1000 (1.0×) |
| pss, KiB               | go<1>  | 250 (2.5×) | 2500 (2.5×) |
";
    let squeezed = |text: &str| text.replace("  ", " ").replace(['-', ' '], "");
    assert_eq!(squeezed(&to_table(&report())), squeezed(expect));
}

#[test]
fn json_has_the_documented_shape() {
    let expect = serde_json::json!({"rounds": 2, "scenarios": [
        {"name": "life", "rows": [{"name": "create", "unit": "ms", "shims": [
            {"name": "native", "median": 1.5, "p95": 2.0, "samples": [1.0, 2.0]},
            {"name": "go<1>", "median": 4.5, "p95": 6.0, "samples": [3.0, 6.0]},
        ]}]},
        {"name": "density", "rows": [{"name": "pss", "unit": "KiB", "at": [1, 10], "shims": [
            {"name": "native", "median": 1000.0, "p95": 1000.0, "samples": [100.0, 1000.0]},
            {"name": "go<1>", "median": 2500.0, "p95": 2500.0, "samples": [250.0, 2500.0]},
        ]}]},
    ]});
    assert_eq!(to_json(&report()), expect);
}

#[test]
fn plots_are_bars_or_lines_and_no_name_breaks_them() {
    let report = report();
    let life = svg::plots(&report.scenarios[0], &report.shims);
    assert_eq!(life.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["times"]);
    assert!(life[0].1.contains("<title>go&lt;1&gt;: 4.5 ms, p95 6 ms</title>"), "{}", life[0].1);
    let density = svg::plots(&report.scenarios[1], &report.shims);
    assert_eq!(density[0].0, "pss");
    assert_eq!(density[0].1.matches("<polyline").count(), 2);
}
