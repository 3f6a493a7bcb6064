//! The page, from hand-made measurements.

use super::*;
use crate::bench::{found::row_of, judge::judge};

fn scenario(name: &str, title: &'static str, rows: Vec<Row>) -> Scenario {
    let command = format!("shimctl bench --scenario {name}");
    Scenario { name: name.to_owned(), title, command, plots: vec![format!("{name}/a.svg")], rows }
}

#[test]
fn a_section_has_its_command_its_rows_and_its_plots() {
    let mut create = row_of("create", "ms", "native", vec![1.0, 2.0, 30.0]);
    create.shims.extend(row_of("create", "ms", "go", vec![100.0]).shims);
    let start = row_of("start", "ms", "go", vec![5.0]);
    let page = write("A machine.", &[scenario("life", "A life", vec![create, start])], &[]);
    assert!(page.contains("\nA machine.\n"));
    let section = "\n## A life\n\n    shimctl bench --scenario life\n\n\
                   | median (95th percentile) | native | go |\n|---|---|---|\n\
                   | create, ms | 2.00 (30.0) | 100 (100) |\n| start, ms | – | 5.00 (5.00) |\n\n\
                   ![performance life a](performance-life-a.svg)\n";
    assert!(page.ends_with(section), "{page}");
}

#[test]
fn a_row_about_many_has_their_number() {
    let mut pss = row_of("pss", "KiB", "native", vec![3.0, 900.0]);
    pss.at = vec![1, 50];
    assert_eq!(line(&pss, &["native"]), "| pss, 50 containers, KiB | 900 |\n");
}

#[test]
fn containerds_part_is_what_is_missing_without_it() {
    let of = |name: &str, value| {
        scenario(name, "", vec![row_of("whole life", "ms", "native", vec![value])])
    };
    let text = split(&[of("containerd", 30.0), of("alone", 12.0)]);
    let line = "- native, back to back: 30.0 ms, of which the shim takes 12.0 ms and containerd \
                18.0 ms.\n";
    assert!(text.ends_with(line), "{text}");
    assert_eq!(split(&[]), "");
}

#[test]
fn every_target_is_a_line_of_the_table() {
    let verdicts = judge(&[]);
    let page = write("", &[], &verdicts);
    assert_eq!(page.matches(" failed | `nothing` |\n").count(), verdicts.len());
    let page = write("", &[scenario("stdio", "", Vec::new())], &verdicts);
    assert_eq!(page.matches(" failed | `shimctl bench --scenario stdio` |\n").count(), 2);
}

#[test]
fn a_plot_has_the_scenario_in_its_name_once() {
    assert_eq!(file_of("life/phases.svg"), "performance-life-phases.svg");
    assert_eq!(file_of("life/life-exec.svg"), "performance-life-exec.svg");
    assert_eq!(file_of("many/many.svg"), "performance-many.svg");
}

#[test]
fn long_lines_are_broken_between_words() {
    let text = wrapped(&"a word of some length ".repeat(9));
    assert!(text.lines().count() == 2 && text.lines().all(|line| line.len() <= 100), "{text}");
    assert_eq!(text.replace('\n', " "), "a word of some length ".repeat(9));
}
